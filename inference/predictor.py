"""Models ready to run: forward pass and postprocessing behind one interface, with timing per stage."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch, batches_of
from data.frames import Failure, frame_of
from inference.backends import ExportedModel
from inference.engine import EngineNetwork
from models.fit import classes_of
from models.layers.base import Layer
from models.plan import Plan
from utils.device import single_thread
from utils.errors import InputError
from utils.letterbox import KERNELS, Letterbox, Preprocessing

T = TypeVar("T")
Outputs = tuple[tuple[Tensor, ...], ...]  # outputs of the heads, for the images and, with augment, their mirror images
_Pass = tuple[float, Callable[[], tuple[Outputs, float]]]  # start, and a function that waits for outputs and seconds


class Runnable(Protocol):
    """A Network or a drop-in replacement for one: an EngineNetwork, a GraphedNetwork or an exported model.

    Calling it with images (n, channels, height, width) returns the outputs of the heads, or those of an exported model.
    Only the heads among its layers are used.
    """

    @property
    def plan(self) -> Plan: ...

    @property
    def __call__(self) -> Any: ...

    def __iter__(self) -> Iterator[Layer]: ...


@dataclass(frozen=True, kw_only=True)
class NmsOptions:
    """Options that decide which boxes are kept.

    conf: confidence threshold, exclusive as in the original.
    iou: IoU threshold of NMS.
    agnostic: suppress across classes.
    max_det: maximum number of boxes per image, the best ones; None: all.
    classes: class ids to keep; None: all.
    single_class: treat all classes as class 0; implies agnostic.
    rank_above: also return each box's rank in the original's list after NMS at this threshold.
    in_pixels: compute overlaps in pixels instead of relative to the image, as the original's `valid` does; the results
        of greedynms and diounms depend on it.
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
    """Counts and total times of a run, complete or not; times in seconds.

    images: images processed.
    objects: detections per class id.
    failures: images that could not be read.
    waiting: time spent waiting for images.
    preprocess: summed over the threads that prepare images.
    inference: time in which the network was running, on one image or several.
    postprocess: by NMS settings.
    network_end: end of the last pass (time.perf_counter).
    interrupted: whether Ctrl-C ended the run.
    """

    images: int = 0
    objects: Counter[int] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    waiting: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: dict[NmsOptions, float] = field(default_factory=dict)
    network_end: float = 0.0
    interrupted: bool = False

    def milliseconds(self, nms: NmsOptions | None = None) -> dict[str, float]:
        """Return the time of each stage per image; preprocessing overlaps with the other stages.

        nms: the settings whose postprocessing counts; default: the first.
        """
        postprocess = next(iter(self.postprocess.values()), 0.0) if nms is None else self.postprocess[nms]
        per_image = 1000 / max(1, self.images)
        return {
            "waiting": self.waiting * per_image,
            "preprocess": self.preprocess * per_image,
            "inference": self.inference * per_image,
            "postprocess": postprocess * per_image,
        }


class Step(NamedTuple, Generic[T]):
    """A batch and its results.

    found: for each of the NMS settings, a result per image.
    speed: milliseconds per image for preprocess, inference and (with the first settings) postprocess.
    """

    batch: Batch[T]
    found: list[list[Any]]
    speed: dict[str, float]


class Model(ABC):
    """A network in evaluation mode on its device; base class of Detector and Classifier.

    names: class names; default: class 0, class 1, ...
    half: run in float16; the network must have been converted.
    Raises InputError for a cfg without a head.
    """

    task: ClassVar[str]
    centre: ClassVar[bool] = False  # whether only the centre of an image is used

    def __init__(
        self, network: Runnable, device: torch.device | None = None, *, names: Sequence[str] = (), half: bool = False
    ) -> None:
        shape = network.plan.input
        self.network, self.device = network, device or torch.device("cpu")
        self.dtype = torch.float16 if half else torch.float32
        self.classes = classes_of(network.plan)
        self.names = tuple(names) or tuple(f"class {number}" for number in range(self.classes))
        self.size_wh, self.channels = (shape.width, shape.height), shape.channels

    def class_ids(self, wanted: Iterable[int | str], flag: str) -> tuple[int, ...]:
        """Return the ids of classes given by name or id. Raises InputError, which names the `flag`."""
        ids = []
        for each in wanted:
            if each in self.names:
                number = self.names.index(str(each))
            else:
                number = int(each) if not isinstance(each, str) or re.fullmatch(r"\d{1,9}", each, re.ASCII) else -1
            if not 0 <= number < self.classes:
                similar = "".join(f", did you mean {name}?" for name in get_close_matches(str(each), self.names, 1))
                raise InputError(f"{flag}: no class {each!r}, expected a name or 0 to {self.classes - 1}{similar}")
            ids.append(number)
        return tuple(ids)

    @property
    def engine(self) -> str:
        """Engine and precision of the last pass, as readable text: "PyTorch, fp32", "OpenVINO, bf16"."""
        if isinstance(self.network, EngineNetwork | ExportedModel):
            return self.network.engine
        return f"PyTorch, {'fp16' if self.dtype == torch.float16 else 'fp32'}"

    def preprocessing(self, letter_box: bool | None = None, kernel: str = KERNELS[0]) -> Preprocessing:
        """Return the conversion of images into inputs. letter_box: keep the aspect ratio; None: as set in the cfg."""
        boxed = self.network.plan.net.letter_box if letter_box is None else letter_box
        return Preprocessing(
            network_wh=self.size_wh, channels=self.channels, letter_box=boxed, kernel=kernel, centre=self.centre
        )

    def forward(self, images: Tensor, *, augment: bool = False) -> Outputs:
        """Return the outputs for images (b, channels, height, width) and, with `augment`, for their mirror images."""
        images = images.to(self.device, self.dtype)
        views = (images, images.flip(3)) if augment else (images,)
        return tuple(self.network(view) for view in views)

    def expect(self, images: int | None, *, parallel: bool = False) -> None:
        """Announce the number of images to come, None if unknown, so that an engine is opened if that pays off.

        parallel: the network may process several at a time, see `run`.
        """
        if isinstance(self.network, EngineNetwork | ExportedModel):
            self.network.expect(images, parallel=parallel)

    @abstractmethod
    def postprocess(self, outputs: Outputs, letterboxes: Sequence[Letterbox], options: NmsOptions) -> list[Any]:
        """Return a result per image: Detections in pixels of that image, or class probabilities, float32 (classes,)."""

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
        """Return the result of `postprocess` for each image in memory.

        images: of any size and any type that `data.frames.as_image` accepts, such as uint8 (height, width, 3) RGB.
        batch_size: maximum number of images per forward pass.
        Raises InputError for anything that is not an image.
        """
        self.expect(len(images))
        frames = (frame_of(each, number) for number, each in enumerate(images))
        batches = batches_of(frames, self.preprocessing(letter_box, kernel), batch_size)
        steps = self.run(batches, [options or NmsOptions()], augment=augment)
        return [each for step in steps for each in step.found[0]]

    def run(
        self,
        batches: Iterable[Batch[T]],
        nms: Sequence[NmsOptions] = (NmsOptions(),),
        statistics: RunStatistics | None = None,
        *,
        augment: bool = False,
        warm_up: bool = False,
        parallel: bool = False,
    ) -> Generator[Step[T], None, None]:
        """Run every batch through the network and `postprocess` it with each of `nms`; update `statistics`.

        warm_up: run the first batch an extra time, untimed, because a network's first pass includes its set-up.
        parallel: start as many batches ahead of the result that is due as keep the network busy.
        """
        statistics = statistics or RunStatistics()
        statistics.postprocess = dict.fromkeys(nms, 0.0)
        running: deque[tuple[Batch[T], _Pass]] = deque()
        begin = time.perf_counter()
        try:
            for batch in batches:
                statistics.waiting += time.perf_counter() - begin
                if warm_up and batch.items:
                    untimed = RunStatistics(postprocess=dict.fromkeys(nms, 0.0))
                    self._finish(batch, self._start(batch, augment), nms, untimed)
                    warm_up = False
                streams = self.streams if parallel and not augment else 1
                running.append((batch, self._start(batch, augment, parallel=streams > 1)))
                # Batches that keep the network busy while the oldest one is finished.
                others = -(-streams // max(len(batch.items), 1)) if streams > 1 else 0
                while len(running) > others:
                    yield self._finish(*running.popleft(), nms, statistics)
                begin = time.perf_counter()
            while running:
                yield self._finish(*running.popleft(), nms, statistics)
        finally:
            for _, (_, wait) in running:  # running passes still use memory that would be freed
                wait()

    @property
    def streams(self) -> int:
        """Number of images that the network processes at a time."""
        return self.network.streams if isinstance(self.network, EngineNetwork | ExportedModel) else 1

    @torch.inference_mode()
    def _start(self, batch: Batch[T], augment: bool, *, parallel: bool = False) -> _Pass:
        """Start the pass of a batch; unless `parallel`, it has ended when this returns."""
        start = time.perf_counter()
        if parallel and batch.items:
            assert isinstance(self.network, EngineNetwork | ExportedModel)
            return start, self.network.start(batch.images)
        outputs = self.forward(batch.images, augment=augment) if batch.items else ()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        return start, lambda: (outputs, seconds)

    @torch.inference_mode()
    def _finish(self, batch: Batch[T], started: _Pass, nms: Sequence[NmsOptions], statistics: RunStatistics) -> Step[T]:
        start, wait = started
        outputs, seconds = wait()
        statistics.failures += batch.failures
        count = len(batch.items)
        if not count:
            return Step(batch, [[] for _ in nms], {})
        found, times = [], [time.perf_counter()]
        # After such small tasks, more threads would busy-wait for the next one and slow the engine down.
        with single_thread():
            for options in nms:
                found.append(self.postprocess(outputs, batch.letterboxes, options))
                times.append(time.perf_counter())
                statistics.postprocess[options] += times[-1] - times[-2]
        statistics.images += count
        statistics.preprocess += batch.seconds
        # If passes overlap, each one counts from the end of the previous one.
        inference = max(0.0, start + seconds - max(start, statistics.network_end))
        statistics.network_end = max(start + seconds, statistics.network_end)
        statistics.inference += inference
        stages = {"preprocess": batch.seconds, "inference": inference, "postprocess": times[1] - times[0]}
        return Step(batch, found, {stage: 1000 * value / count for stage, value in stages.items()})


class Classifier(Model):
    """A network that returns class probabilities instead of boxes."""

    task, centre = "classify", True

    @cached_property
    def tree(self) -> Any:
        """The class tree of its [softmax], or None."""
        return next((tree for layer in self.network if (tree := getattr(layer, "tree", None)) is not None), None)

    def postprocess(
        self,
        outputs: Outputs,
        letterboxes: Sequence[Letterbox] = (),
        options: NmsOptions | None = None,
    ) -> list[Any]:
        """Return class probabilities, float32 (classes,) on the CPU, per image; the mean over the views of an image.

        With a class tree, conditional probabilities are multiplied from the root down (tree.c hierarchy_predictions).
        """
        views = [view[-1].float().flatten(1).cpu() for view in outputs]
        if self.tree is not None:
            views = [self.tree.absolute(view) for view in views]
        return list(torch.stack(views).mean(0).numpy())

    def only_leaves(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (classes,) with 0 for classes that have subclasses, as the original measures accuracy."""
        if self.tree is None:
            return probabilities
        return np.where(np.isin(np.arange(len(probabilities)), self.tree.parents), np.float32(0), probabilities)


CROP_SHIFT = 32
"""Pixels by which an image is wider and higher than its ten crops."""


class TenCropClassifier(Classifier):
    """A classifier that averages ten crops of an image stretched to 32 pixels more than its input size.

    The crops are the original's (classifier.c validate_classifier_10): the top left one, four that are shifted from it
    diagonally by 32 pixels, repeating edge pixels beyond the left and upper edge, and the same of the mirror image.
    """

    def preprocessing(self, letter_box: bool | None = None, kernel: str = KERNELS[0]) -> Preprocessing:
        width, height = self.size_wh
        return Preprocessing(
            network_wh=(width + CROP_SHIFT, height + CROP_SHIFT), channels=self.channels, kernel=kernel
        )

    @property
    def streams(self) -> int:
        return 1  # crops are made in `forward`

    def forward(self, images: Tensor, *, augment: bool = False) -> Outputs:
        """Return the outputs for the ten crops of images (b, channels, height + 32, width + 32)."""
        assert not augment, "the crops include the mirror image"
        images = images.to(self.device, self.dtype)
        return tuple(
            self.network(crop) for view in (images, images.flip(3)) for crop in _five_crops(view, self.size_wh)
        )


def _five_crops(images: Tensor, size_wh: tuple[int, int]) -> Iterator[Tensor]:
    """Yield crops (b, channels, height, width); edge pixels are repeated beyond the edges (image.c crop_image)."""
    for right, down in ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)):
        columns, rows = (
            torch.arange(length, device=images.device).add(shift * CROP_SHIFT).clamp(0, length + CROP_SHIFT - 1)
            for length, shift in zip(size_wh, (right, down), strict=True)
        )
        yield images[:, :, rows[:, None], columns].contiguous()
