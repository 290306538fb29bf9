"""The pipeline from a source to results, frame by frame: reading and preprocessing run ahead in threads, memory stays constant."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial

from data.batches import batches_of
from data.frames import Failure, Frames
from inference.predictor import Model, NmsOptions, RunStatistics
from inference.results import Result
from utils.detections import Detections
from utils.letterbox import KERNELS

_AHEAD = 4  # inputs that wait for the network
# Images that take turns in threads and caches together, where the network takes several at a time: 8 % faster.
_GROUP = 4


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
    model.expect(frames.total, parallel=frames.ahead)
    # Frames of a live source are taken and prepared one by one at the last moment: ahead of time, they would be outdated.
    if frames.ahead and model.streams > 1:
        batch_size = max(batch_size, _GROUP)
    ahead = max(_AHEAD, batch_size) if frames.ahead else 0
    batches = batches_of(frames, model.preprocessing(letter_box, kernel), batch_size, ahead=ahead)
    way = partial(model.postprocess, options=nms or NmsOptions())
    steps = model.run(batches, [way], statistics, augment=augment, parallel=frames.ahead)
    with closing(batches), closing(steps):
        for step in steps:
            yield from step.batch.failures
            for frame, found in zip(step.batch.items, step.found[0], strict=True):
                if isinstance(found, Detections):
                    statistics.objects.update(found.class_ids.tolist())
                    yield Result(frame=frame, names=model.names, detections=found, speed=step.speed)
                else:
                    yield Result(frame=frame, names=model.names, probabilities=found, speed=step.speed)
