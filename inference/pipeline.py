"""The pipeline from a source to results, frame by frame: reading and preprocessing run ahead in threads, memory stays constant."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from itertools import islice

from data.batches import Batch, batches_of
from data.frames import Failure, Frame, Frames
from data.prefetch import Prefetch
from inference.predictor import Model, NmsOptions, RunStatistics
from inference.results import Result
from utils.detections import Detections
from utils.letterbox import KERNELS

_AHEAD = 4  # inputs that wait for the network
_TRIAL = 3  # batches that are timed before the decision
# In parts of the network's time; below it, a thread that prepares inputs slows the network down more than it saves.
_PAYS_FROM = 0.45


def predict_frames(
    model: Model,
    frames: Frames,
    nms: NmsOptions | None = None,
    *,
    letter_box: bool | None = None,
    kernel: str = KERNELS[0],
    batch_size: int = 1,
    augment: bool = False,
    statistics: RunStatistics | None = None,
) -> Generator[Result | Failure, None, None]:
    """A Result for each frame, in order, and a Failure for each image that could not be read.

    letter_box: keep the aspect ratio; None: as the cfg says. kernel: see `utils.letterbox.network_input`. augment: run on the
    mirrored image too. statistics: is brought up to date before each result. The caller closes `frames`.
    """
    statistics = statistics or RunStatistics()
    model.expect(frames.total)
    batches = batches_of(frames, model.preprocessing(letter_box, kernel), batch_size)
    # Frames of a live source are preprocessed at the last moment: prepared ahead, they would be outdated.
    ready = _ahead_if_it_pays(batches, -(-_AHEAD // batch_size), statistics) if frames.ahead else batches
    way = partial(model.postprocess, options=nms or NmsOptions())
    with closing(batches), closing(ready):
        for step in model.run(ready, [way], statistics, augment=augment):
            yield from step.batch.failures
            for frame, found in zip(step.batch.items, step.found[0], strict=True):
                if isinstance(found, Detections):
                    statistics.objects.update(found.class_ids.tolist())
                    yield Result(frame=frame, names=model.names, detections=found, speed=step.speed)
                else:
                    yield Result(frame=frame, names=model.names, probabilities=found, speed=step.speed)


def _ahead_if_it_pays(
    batches: Generator[Batch[Frame], None, None], ahead: int, statistics: RunStatistics
) -> Generator[Batch[Frame], None, None]:
    """The batches; from the fifth on a thread prepares them ahead if preparing takes long beside the network's time."""
    yield from islice(batches, 1)  # a network's first run sets it up
    preprocess, inference = statistics.preprocess, statistics.inference
    yield from islice(batches, _TRIAL)
    if statistics.preprocess - preprocess < _PAYS_FROM * (statistics.inference - inference):
        yield from batches
        return
    with closing(Prefetch(batches, ahead)) as prepared:
        yield from prepared
