"""Networks ready to run: forward pass and post-processing behind one interface, timed stage by stage."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from data.batches import Batch, batches_of
from data.frames import Failure, Frame, as_image
from inference.backends import ExportedModel
from inference.engine import EngineNetwork
from models.fit import classes_of
from models.layers.base import Layer
from models.plan import Plan
from utils.device import single_thread
from utils.letterbox import KERNELS, Letterbox, Preprocessing

T = TypeVar("T")
Outputs = tuple[tuple[Tensor, ...], ...]  # of the heads, for the images and, with augment, for their mirror images
# Waits for the outputs of a pass, its start and end (time.perf_counter).
_Pass = Callable[[], tuple[Outputs, float, float]]
Postprocess = Callable[[Outputs, Sequence[Letterbox]], list[Any]]


class Runnable(Protocol):
    """A Network, or what stands for one: an EngineNetwork or an exported model.

    Called with images (n, channels, height, width) it returns the outputs of the heads, or what an exported model makes of
    them. Of the layers, only heads are used.
    """

    @property
    def plan(self) -> Plan: ...

    @property
    def __call__(self) -> Any: ...

    def __iter__(self) -> Iterator[Layer]: ...


@dataclass(frozen=True, kw_only=True)
class NmsOptions:
    """Which boxes are kept.

    conf: confidence threshold, exclusive as in the original. iou: NMS IoU threshold. agnostic: suppress across classes.
    max_det: most boxes of an image, the best ones; None: all. classes: the classes wanted; None: all. single_class: call
    every class 0, which implies agnostic. rank_above: also give each box's rank in the list that the original, at this
    threshold, has after NMS. in_pixels: compare boxes in pixels instead of relative to the image, as the original's `valid`
    does; greedynms and diounms depend on it.
    """

    conf: float = 0.25
    iou: float = 0.45
    agnostic: bool = False
    max_det: int | None = None
    classes: tuple[int, ...] | None = None
    single_class: bool = False
    rank_above: float | None = None
    in_pixels: bool = False


@dataclass(kw_only=True)
class RunStatistics:
    """What a run has done so far, complete or not.

    images: how many have passed. objects: detections of each class. failures: images that could not be read.
    Seconds, added up: `waiting` for images, `preprocess` in the threads that prepare them, `inference` while the network was
    at work, on one image or several, and `postprocess`, one entry for each way of post-processing. network_end: of the last
    pass (time.perf_counter). interrupted: ended early by Ctrl-C.
    """

    images: int = 0
    objects: Counter[int] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    waiting: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: list[float] = field(default_factory=list)
    network_end: float = 0.0
    interrupted: bool = False

    def milliseconds(self, way: int = 0) -> dict[str, float]:
        """Time of each stage per image; preparing images goes on beside the other stages."""
        per_image = 1000 / max(1, self.images)
        return {
            "waiting": self.waiting * per_image,
            "preprocess": self.preprocess * per_image,
            "inference": self.inference * per_image,
            "postprocess": self.postprocess[way] * per_image if self.postprocess else 0.0,
        }


class Step(NamedTuple, Generic[T]):
    """A batch that went through the network. found: for each way of post-processing, a result for each image.

    speed: milliseconds per image of preprocess, inference and (first way) postprocess.
    """

    batch: Batch[T]
    found: list[list[Any]]
    speed: dict[str, float]


class Model(ABC):
    """A network in evaluation mode on its device. Detector and Classifier are the two kinds.

    names: of the classes; by default class 0, class 1, ... half: 16-bit floats; the network must have been converted.
    Raises InputError for a cfg without a head.
    """

    task: ClassVar[str]

    def __init__(
        self, network: Runnable, device: torch.device | None = None, *, names: Sequence[str] = (), half: bool = False
    ) -> None:
        shape = network.plan.input
        self.network, self.device = network, device or torch.device("cpu")
        self.dtype = torch.float16 if half else torch.float32
        self.classes = classes_of(network.plan)
        self.names = tuple(names) or tuple(f"class {number}" for number in range(self.classes))
        self.size_wh, self.channels = (shape.width, shape.height), shape.channels

    @property
    def engine(self) -> str:
        """Engine and precision of the latest pass, for people: "PyTorch, fp32", "OpenVINO, bf16"."""
        if isinstance(self.network, EngineNetwork | ExportedModel):
            return self.network.engine
        return f"PyTorch, {'fp16' if self.dtype == torch.float16 else 'fp32'}"

    def preprocessing(self, letter_box: bool | None = None, kernel: str = KERNELS[0]) -> Preprocessing:
        """How images become inputs. letter_box: keep the aspect ratio; None: as the cfg says."""
        boxed = self.network.plan.net.letter_box if letter_box is None else letter_box
        centre = self.task == Classifier.task
        return Preprocessing(
            network_wh=self.size_wh, channels=self.channels, letter_box=boxed, kernel=kernel, centre=centre
        )

    def forward(self, images: Tensor, *, augment: bool = False) -> Outputs:
        """Outputs for images (b, channels, height, width); with `augment` also for their mirror images."""
        images = images.to(self.device, self.dtype)
        views = (images, images.flip(3)) if augment else (images,)
        return tuple(self.network(view) for view in views)

    def expect(self, images: int | None, *, parallel: bool = False) -> None:
        """Announce how many images follow, None: no end is known; an engine is opened if they are worth it.

        parallel: several may be in the network at a time, see `run`.
        """
        if isinstance(self.network, EngineNetwork | ExportedModel):
            self.network.expect(images, parallel=parallel)

    @abstractmethod
    def postprocess(self, outputs: Outputs, letterboxes: Sequence[Letterbox], options: NmsOptions) -> list[Any]:
        """A result for each image: Detections in its own pixels, or the probability of each class, float32 (classes,)."""

    def predict(
        self,
        images: Sequence[Any],
        options: NmsOptions | None = None,
        *,
        letter_box: bool | None = None,
        kernel: str = KERNELS[0],
        batch_size: int = 8,
        augment: bool = False,
    ) -> list[Any]:
        """A result for each image in memory, see `postprocess`.

        images: of any sizes, what `data.frames.as_image` takes, such as uint8 (height, width, 3) RGB. batch_size: most
        images in one forward pass. Raises InputError for what is no such image.
        """
        self.expect(len(images))
        frames = (Frame(image=as_image(each, f"image {n}"), path=f"image{n}") for n, each in enumerate(images))
        batches = batches_of(frames, self.preprocessing(letter_box, kernel), batch_size)
        way = partial(self.postprocess, options=options or NmsOptions())
        return [each for step in self.run(batches, [way], augment=augment) for each in step.found[0]]

    def run(
        self,
        batches: Iterable[Batch[T]],
        ways: Sequence[Postprocess],
        statistics: RunStatistics | None = None,
        *,
        augment: bool = False,
        warm_up: bool = False,
        parallel: bool = False,
    ) -> Generator[Step[T], None, None]:
        """Every batch through the network and each way of post-processing, with the time of each stage in `statistics`.

        warm_up: run the first batch twice, the first time untimed, because the first run of a network sets it up.
        parallel: take the next batches before a result is out, as many as keep the network busy.
        """
        statistics = statistics or RunStatistics()
        statistics.postprocess = [0.0] * len(ways)
        running: deque[tuple[Batch[T], _Pass]] = deque()
        begin = time.perf_counter()
        try:
            for batch in batches:
                statistics.waiting += time.perf_counter() - begin
                if warm_up and batch.items:
                    self._finish(batch, self._start(batch, augment), ways, RunStatistics(postprocess=[0.0] * len(ways)))
                    warm_up = False
                streams = self.streams if parallel and not augment else 1
                running.append((batch, self._start(batch, augment, parallel=streams > 1)))
                # Others keep the network busy meanwhile.
                others = -(-streams // max(len(batch.items), 1)) if streams > 1 else 0
                while len(running) > others:
                    yield self._finish(*running.popleft(), ways, statistics)
                begin = time.perf_counter()
            while running:
                yield self._finish(*running.popleft(), ways, statistics)
        finally:
            for _, wait in running:  # they read images and write outputs that would be freed
                wait()

    @property
    def streams(self) -> int:
        """Images that the network works on at a time."""
        return self.network.streams if isinstance(self.network, EngineNetwork | ExportedModel) else 1

    @torch.inference_mode()
    def _start(self, batch: Batch[T], augment: bool, *, parallel: bool = False) -> _Pass:
        if not batch.items:
            return lambda: ((), 0.0, 0.0)
        start = time.perf_counter()
        if parallel:
            assert isinstance(self.network, EngineNetwork | ExportedModel)
            wait = self.network.start(batch.images)

            def one_view() -> tuple[Outputs, float, float]:
                outputs, seconds = wait()
                return (outputs,), start, start + seconds

            return one_view
        outputs = self.forward(batch.images, augment=augment)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        end = time.perf_counter()
        return lambda: (outputs, start, end)

    @torch.inference_mode()
    def _finish(self, batch: Batch[T], wait: _Pass, ways: Sequence[Postprocess], statistics: RunStatistics) -> Step[T]:
        outputs, start, end = wait()
        statistics.failures += batch.failures
        count = len(batch.items)
        if not count:
            return Step(batch, [[] for _ in ways], {})
        found, times = [], [time.perf_counter()]
        # Threads of such small work would go on waiting in a loop for more, and slow an engine down.
        with single_thread():
            for way, postprocess in enumerate(ways):
                found.append(postprocess(outputs, batch.letterboxes))
                times.append(time.perf_counter())
                statistics.postprocess[way] += times[-1] - times[-2]
        statistics.images += count
        statistics.preprocess += batch.seconds
        # Of passes that overlap, each counts from the end of the one before.
        inference = max(0.0, end - max(start, statistics.network_end))
        statistics.network_end = max(end, statistics.network_end)
        statistics.inference += inference
        seconds = {"preprocess": batch.seconds, "inference": inference, "postprocess": times[1] - times[0]}
        return Step(batch, found, {stage: 1000 * value / count for stage, value in seconds.items()})


class Classifier(Model):
    """A network without boxes: probabilities of classes."""

    task = "classify"

    @cached_property
    def tree(self) -> Any:
        """The tree of classes of its [softmax], None without one."""
        return next((tree for layer in self.network if (tree := getattr(layer, "tree", None)) is not None), None)

    def postprocess(
        self,
        outputs: Outputs,
        letterboxes: Sequence[Letterbox] = (),
        options: NmsOptions | None = None,
        *,
        leaves_only: bool = False,
    ) -> list[Any]:
        """Probability of each class, float32 (classes,) on the CPU, for each image; of its mirror image too: the mean.

        Of a tree of classes they are those from the top down (tree.c hierarchy_predictions). leaves_only: 0 for classes
        that have others below them, as the original measures.
        """
        found = torch.stack([self._probabilities(view[-1].float().flatten(1).cpu()) for view in outputs]).mean(0)
        if self.tree is not None and leaves_only:
            found[:, [parent for parent in set(self.tree.parents) if parent >= 0]] = 0
        return list(found.numpy())

    def _probabilities(self, found: Tensor) -> Tensor:
        return found if self.tree is None else self.tree.absolute(found)


CROP_SHIFT = 32
"""Pixels by which an image is larger than its ten crops."""


class TenCropClassifier(Classifier):
    """A classifier that averages ten crops of an image stretched to its input and 32 pixels more.

    They are the original's (classifier.c validate_classifier_10): the top left crop, four that are shifted by 32 pixels to
    either side, of which those to the left and above repeat edge pixels, and the same of the mirror image.
    """

    def preprocessing(self, letter_box: bool | None = None, kernel: str = KERNELS[0]) -> Preprocessing:
        width, height = self.size_wh
        return Preprocessing(
            network_wh=(width + CROP_SHIFT, height + CROP_SHIFT), channels=self.channels, kernel=kernel
        )

    @property
    def streams(self) -> int:
        return 1  # `forward` cuts the crops

    def forward(self, images: Tensor, *, augment: bool = False) -> Outputs:
        """Outputs for the ten crops of images (b, channels, height + 32, width + 32)."""
        assert not augment, "the crops include the mirror image"
        images = images.to(self.device, self.dtype)
        return tuple(
            self.network(crop) for view in (images, images.flip(3)) for crop in _five_crops(view, self.size_wh)
        )


def _five_crops(images: Tensor, size_wh: tuple[int, int]) -> Iterator[Tensor]:
    """Crops (b, channels, height, width); beyond the edges their pixels are repeated (image.c crop_image)."""
    for right, down in ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)):
        columns, rows = (
            torch.arange(length, device=images.device).add(shift * CROP_SHIFT).clamp(0, length + CROP_SHIFT - 1)
            for length, shift in zip(size_wh, (right, down), strict=True)
        )
        yield images[:, :, rows[:, None], columns].contiguous()
