"""Exported models and the engines that run them."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference import compile_cache
from models.export.metadata import Metadata
from models.export.onnx import read_onnx_metadata
from models.export.openvino import read_pairs
from models.export.torchscript import read_torchscript
from models.heads.base import Candidates
from models.layers.base import Layer
from models.onnx_graph import INPUT
from models.plan import Plan
from utils.cli import out_of_memory
from utils.errors import InputError, RunError
from utils.files import is_file
from utils.packages import need

logger = logging.getLogger(__name__)

Arrays = list[NDArray[np.float32]]
# Waits for a pass and returns the outputs of its only view, and its duration in seconds.
Wait = Callable[[], tuple[tuple[tuple[Tensor, ...]], float]]


class Runner(Protocol):
    """A model loaded by an engine. engine: its name."""

    engine: str

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Return the outputs for images (n, channels, height, width); n is the model's batch size if that is fixed."""
        ...


class Session(Runner, Protocol):
    """A model file loaded by an engine. metadata: what the file says about it."""

    metadata: Metadata


def as_floats(values: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)


def _failed(place: str, error: Exception, reason: str) -> Exception:
    """Return the error to raise: RunError if memory ran out, else InputError for a model that the engine cannot run."""
    if out_of_memory(error):
        return RunError(f"{place}: out of memory; try a smaller input size or batch")
    return InputError(f"{place}: {reason}")


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """A model in memory, run by ONNX Runtime with as many threads as PyTorch uses.

    model: ONNX. place: what messages call it. Raises InputError without the package, and for a model that it cannot load or run.
    """

    engine = "ONNX Runtime"

    def __init__(self, model: bytes, place: str, device: torch.device) -> None:
        library = need("onnxruntime", "onnxruntime")
        options = library.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # warnings about float16 on a CPU and the like do not concern the user
        wanted = _PROVIDERS.get(device.type, _PROVIDERS["cpu"])
        if wanted not in library.get_available_providers():
            logger.warning("%s: this onnxruntime lacks %s, using the CPU", place, wanted)
            wanted = _PROVIDERS["cpu"]
        self._place = place
        own = vars(library.capi.onnxruntime_pybind11_state).values()  # its errors have no common base
        kinds = (each for each in own if isinstance(each, type) and issubclass(each, Exception))
        self._errors: tuple[type[Exception], ...] = (*kinds, RuntimeError, ValueError, TypeError)
        try:
            self._session = library.InferenceSession(model, options, providers=[wanted])
        except self._errors as error:
            raise InputError(f"{place}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from None

    def run(self, images: NDArray[np.float32]) -> Arrays:
        try:
            return [as_floats(each) for each in self._session.run(None, {INPUT: images})]
        except self._errors as error:
            reason = str(error).splitlines()[0]
            raise _failed(self._place, error, f"ONNX Runtime cannot run it: {reason}") from None


class OnnxRuntimeSession(OnnxRuntime):
    """ONNX Runtime. Raises InputError for a file that is not an ONNX model of this program, and without the package."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self.metadata = Metadata.from_pairs(read_onnx_metadata(path), str(path))
        super().__init__(Path(path).read_bytes(), str(path), device)


@contextmanager
def _openvino_errors(place: object, verb: str) -> Iterator[None]:
    """Raise InputError or RunError in place of OpenVINO's errors, which have many lines."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise _failed(str(place), error, f"OpenVINO cannot {verb} it: {reason}") from None


@cache
def _openvino() -> tuple[Any, Any]:
    """The package, and the only Core of this process.

    A Core's CPU plugin gives the thread a signal stack and takes it away when it is closed. Of several Cores, one may
    bring back the stack of another that is closed, and the next signal, such as Ctrl-C, ends in a segmentation fault.
    """
    library = need("openvino", "openvino")
    return library, library.Core()


class OpenVino:
    """A model run by OpenVINO with as many threads as PyTorch uses.

    model: gives ONNX, or what OpenVINO has read. place: what messages call it. half: compute in bfloat16 on a CPU; float32
    otherwise. parallel: several images at a time, each on a part of the threads; otherwise each image as fast as possible; None:
    it is compiled by `prefer`, or by its first run.
    content: a hash of the model, by which it is kept in compiled form; None: it is compiled each time.
    streams: how many images it works on at a time. cached: the key in `compile_cache` of a model that came from there.
    Several threads may run it.
    Raises InputError without the package, and for a model that it cannot load.
    """

    engine = "OpenVINO"

    def __init__(
        self,
        model: Callable[[], Any],
        place: str,
        device: torch.device,
        *,
        half: bool = False,
        parallel: bool | None = False,
        content: str | None = None,
    ) -> None:
        self._model, self._place, self._device, self.half, self._content = model, place, device, half, content
        self.parallel: bool | None = None  # as compiled
        self._idle: list[Any] = []
        self.streams = 1
        if parallel is not None:
            self.prefer(parallel)

    def prefer(self, parallel: bool) -> bool:
        """Compile it, which takes about half a second for a small model, unless it is as wanted. Returns whether it did."""
        if parallel == self.parallel:
            return False
        self.compile(parallel)
        return True

    def compile(self, parallel: bool) -> None:
        """Compile it, or take it from the cache."""
        library, core = _openvino()
        name = "CPU" if self._device.type == "cpu" else "GPU"
        settings = {
            # Without it, OpenVINO computes in bfloat16 wherever the processor has the instructions.
            "INFERENCE_PRECISION_HINT": "bf16" if self.half else "f32",
            "PERFORMANCE_HINT": "THROUGHPUT" if parallel else "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        key = None
        if self._content is not None:
            facts = (self._content, library.get_version(), core.get_property(name, "FULL_DEVICE_NAME"), settings)
            key = hashlib.sha256(repr(facts).encode()).hexdigest()
        kept: Any = None if key is None else _imported(core, key, name, settings)
        self.cached = None if kept is None else key
        if kept is None:
            made = self._model()
            with _openvino_errors(self._place, "load"):
                model = core.read_model(made) if isinstance(made, bytes) else made
                compiled = core.compile_model(model, name, settings)
        else:
            compiled = kept
        if key is not None and kept is None:
            compile_cache.write(key, bytes(compiled.export_model().getbuffer()))
        self.streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._compiled, self._idle = compiled, []
        self.parallel = parallel  # last: `run` in another thread needs the rest

    def run(self, images: NDArray[np.float32]) -> Arrays:
        if self.parallel is None:
            self.compile(False)
        return self.start(images)()[0]

    def start(self, images: NDArray[np.float32]) -> Callable[[], tuple[Arrays, float]]:
        """Begin a run; the function returned waits for its outputs and the seconds from the beginning to its end."""
        idle = self._idle
        try:
            request = idle.pop()  # calling the compiled model itself would use one request for all threads
        except IndexError:
            request = self._compiled.create_infer_request()
        with _openvino_errors(self._place, "run"):
            request.start_async(images, share_inputs=True)

        def finish() -> tuple[Arrays, float]:
            with _openvino_errors(self._place, "run"):
                request.wait()
            found = [np.array(each.data, np.float32) for each in request.output_tensors]
            idle.append(request)
            return found, request.latency / 1e3

        return finish


def start_each(runner: OpenVino, images: Tensor) -> Wait:
    """Begin a run for each image of a batch; see `OpenVino.start`."""
    arrays = images.numpy()
    started = [runner.start(arrays[place : place + 1]) for place in range(len(arrays))]

    def finish() -> tuple[tuple[tuple[Tensor, ...]], float]:
        found, seconds = zip(*(wait() for wait in started), strict=True)
        return (as_batch(found),), max(seconds)

    return finish


def as_batch(found: Sequence[Arrays]) -> tuple[Tensor, ...]:
    """Join the outputs of single images into those of a batch."""
    if len(found) == 1:
        return tuple(map(torch.from_numpy, found[0]))
    return tuple(torch.from_numpy(np.concatenate(same)) for same in zip(*found, strict=True))


def _imported(core: Any, key: str, device: str, settings: dict[str, Any]) -> Any:
    """Return a compiled model from the cache; None if it is not there or cannot be used."""
    kept = compile_cache.read(key)
    try:
        return None if kept is None else core.import_model(kept, device, settings)
    except RuntimeError:
        compile_cache.remove(key)
        return None


class OpenVinoSession(OpenVino):
    """OpenVINO. Raises InputError for a file that is not a model of this program, and without the package."""

    def __init__(self, path: str | Path, device: torch.device, *, half: bool = False) -> None:
        _, core = _openvino()
        if not is_file(path):
            raise InputError(f"{path}: no such model")
        if Path(path).suffix == ".xml" and not is_file(Path(path).with_suffix(".bin")):
            raise InputError(f"{path}: {Path(path).with_suffix('.bin').name} with its weights is missing beside it")
        with _openvino_errors(path, "load"):
            model = core.read_model(str(path))
        is_onnx = Path(path).suffix == ".onnx"
        pairs = read_onnx_metadata(path) if is_onnx else read_pairs(model)
        self.metadata = Metadata.from_pairs(pairs, str(path))
        super().__init__(lambda: core.read_model(str(path)), str(path), device, half=half, parallel=None)


class OpenCvSession:
    """OpenCV. Raises InputError for a file that is not an ONNX model of this program, or that this OpenCV cannot load."""

    engine = "OpenCV"

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self.metadata = Metadata.from_pairs(read_onnx_metadata(path), str(path))
        self._place = str(path)
        if self.metadata.outputs == "nms":
            raise InputError(
                f"{path}: has NMS inside, which OpenCV crashes in where nothing is found (a division by zero); expected another "
                "engine, such as --backend onnxruntime, or a model without --output nms"
            )
        try:
            self._net = cv2.dnn.readNetFromONNX(str(Path(path)))
        except cv2.error as error:
            raise InputError(f"{path}: OpenCV {cv2.__version__} cannot load it: {error.err}") from None
        self.names = list(self._net.getUnconnectedOutLayersNames())
        self._lock = threading.Lock()  # the input belongs to the network

    def run(self, images: NDArray[np.float32]) -> Arrays:
        try:
            with self._lock:
                self._net.setInput(images, INPUT)
                return [as_floats(each) for each in self._net.forward(self.names)]
        except cv2.error as error:
            reason = f"OpenCV {cv2.__version__} cannot run it: {error.err}"
            raise _failed(self._place, error, reason) from None


class TorchScriptSession:
    """PyTorch. Raises InputError for a file that is not a TorchScript model of this program."""

    engine = "TorchScript"

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self._place = str(path)
        self._model, pairs = read_torchscript(path, device)
        self.metadata = Metadata.from_pairs(pairs, str(path))
        self._device = device

    def run(self, images: NDArray[np.float32]) -> Arrays:
        try:
            with torch.inference_mode():
                return [each.cpu().numpy() for each in self._model(torch.from_numpy(images).to(self._device))]
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise _failed(self._place, error, f"PyTorch cannot run it: {reason}") from None


_MANY = 200  # images for which it pays to compile a model a second time
_DETECTION = 7  # values of a row of outputs="nms": image, class, score, box


class ExportedModel:
    """Stands for a network: called the same way; of its layers it has the heads only, which decode raw outputs.

    size_wh: another input size than the model's own, in pixels. Raises InputError when the model's size is fixed.
    """

    def __init__(self, session: Session, place: str, size_wh: tuple[int, int] | None = None) -> None:
        self.session, self.metadata, self._place = session, session.metadata, place
        self._least = self.metadata.conf or 0.0  # the threshold of the NMS inside the model
        own = self.metadata.size_wh
        if size_wh not in (None, own) and not self.metadata.dynamic_size:
            raise InputError(
                f"{place}: its input is {own[0]}x{own[1]}, it cannot run at {size_wh[0]}x{size_wh[1]}; "
                "export it at that size, or with --dynamic size"
            )
        width, height = size_wh or own
        self.plan: Plan = self.metadata.description.plan(place, width=width, height=height)

    def __iter__(self) -> Iterator[Layer]:
        for step in self.plan.steps:
            yield step.section.build(step.site) if step in self.plan.heads else Layer()

    @property
    def engine(self) -> str:
        """See Model.engine."""
        half = isinstance(self.session, OpenVino) and self.session.half
        return f"{self.session.engine}, {'bf16' if half else 'as exported'}"

    def expect(self, images: int | None, *, parallel: bool = False) -> None:
        """See EngineNetwork.expect."""
        if isinstance(self.session, OpenVino) and (self.session.parallel is None or images is None or images >= _MANY):
            self.session.prefer(parallel)

    @property
    def streams(self) -> int:
        """Images that the engine works on at a time."""
        by_images = self.metadata.batch in (None, 1) and self.metadata.outputs != "nms"
        return self.session.streams if by_images and isinstance(self.session, OpenVino) else 1

    def start(self, images: Tensor) -> Wait:
        """See EngineNetwork.start."""
        assert isinstance(self.session, OpenVino)
        wait = start_each(self.session, images)

        def finish() -> tuple[tuple[tuple[Tensor, ...]], float]:
            views, seconds = wait()
            self._check([tuple(each.shape) for each in views[0]], len(images))
            return views, seconds

        return finish

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        arrays = np.ascontiguousarray(images.float().cpu().numpy())
        return tuple(torch.from_numpy(each) for each in self._run(arrays))

    def _run(self, images: NDArray[np.float32]) -> Arrays:
        """Run a model of fixed batch size in parts, the last one padded."""
        batch = self.metadata.batch
        if batch is None or len(images) == batch:
            return self._outputs(images)
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            try:
                whole = np.concatenate((part, np.zeros((batch - len(part), *images.shape[1:]), np.float32)))
            except (MemoryError, ValueError, OverflowError):
                raise RunError(f"{self._place}: not enough memory for its batch of {batch} images") from None
            parts.append(self._cut(self._outputs(whole), start, len(part)))
        return [np.concatenate(same) for same in zip(*parts, strict=True)]

    def _outputs(self, images: NDArray[np.float32]) -> Arrays:
        outputs = self.session.run(images)
        self._check([each.shape for each in outputs], len(images))
        return outputs

    def _check(self, shapes: Sequence[tuple[int, ...]], count: int) -> None:
        """Raise InputError unless the outputs have the shapes that the model's metadata promises."""
        heads = self.plan.heads
        if self.metadata.outputs == "nms":
            fits = len(shapes) == 1 and shapes[0][-1:] == (_DETECTION,)
        elif self.metadata.outputs == "boxes":
            n, boxes, _ = first = shapes[0] if len(shapes) == 2 and len(shapes[0]) == 3 else (0, 0, 0)
            classes = {section.classes for section in self.plan.box_sections[-1:]}
            fits = first == (count, boxes, 4) and shapes[1][:2] == (n, boxes) and {*shapes[1][2:]} == classes
        else:
            fits = [(each[:1], math.prod(each)) for each in shapes] == [
                ((count,), count * head.shape.outputs) for head in heads
            ]
        if not fits:
            raise InputError(f"{self._place}: its outputs {shapes} do not match the network that it describes")

    def _cut(self, outputs: Arrays, start: int, count: int) -> Arrays:
        if self.metadata.outputs != "nms":
            return [each[:count] for each in outputs]
        (rows,) = outputs
        rows = rows.reshape(-1, _DETECTION)
        rows = rows[rows[:, 0] < count].copy()
        rows[:, 0] += start
        return [rows]

    def candidates(self, outputs: Sequence[Tensor], conf: float, classes: int) -> Candidates:
        """Return the boxes above `conf` of a model that decodes them itself (outputs="boxes" or "nms")."""
        if self.metadata.outputs == "nms":
            return self._of_rows(outputs[0].reshape(-1, _DETECTION), conf, classes)
        boxes, scores = outputs
        scores = torch.where(scores > conf, scores, 0.0)
        image, place = (scores.amax(2) > 0).nonzero().unbind(1)
        chosen = scores[image, place]
        return Candidates(image, boxes[image, place], chosen, chosen.amax(1) if len(chosen) else chosen.new_zeros(0))

    def _of_rows(self, rows: Tensor, conf: float, classes: int) -> Candidates:
        if conf < self._least:
            logger.warning(
                "the model has NMS inside with a confidence threshold of %g: lower scores are missing", self._least
            )
            self._least = 0.0  # warned once
        rows = rows[rows[:, 2] > conf]
        if not ((rows[:, 1] >= 0) & (rows[:, 1] < classes)).all():
            raise InputError(f"{self._place}: finds classes that are not among its {classes}")
        scores = rows.new_zeros(len(rows), classes)
        scores[torch.arange(len(rows)), rows[:, 1].long()] = rows[:, 2]
        return Candidates(rows[:, 0].long(), rows[:, 3:], scores, rows[:, 2])
