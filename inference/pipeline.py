"""The pipeline from a source to results: reading and preprocessing run ahead in threads, in constant memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from data.batches import batches_of
from data.frames import Failure, Frames
from inference.predictor import Model, NmsOptions, RunStatistics
from inference.results import Result
from utils.detections import Detections
from utils.letterbox import KERNELS

_AHEAD = 4  # inputs prepared ahead of the network
# Minimum batch size if the network runs several images at a time: batches keep threads and caches together, 8 % faster.
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
    """Yield a Result per frame, in order, and a Failure per image that could not be read. The caller closes `frames`.

    letter_box: keep the aspect ratio; None: as set in the cfg.
    kernel: see `utils.letterbox.network_input`.
    augment: also run on the mirrored image.
    statistics: updated before each result.
    """
    statistics = statistics or RunStatistics()
    model.expect(frames.total, parallel=frames.ahead)
    # Frames of a live source are read and prepared one by one at the last moment; earlier, they would be outdated.
    if frames.ahead and model.streams > 1:
        batch_size = max(batch_size, _GROUP)
    ahead = max(_AHEAD, batch_size) if frames.ahead else 0
    batches = batches_of(frames, model.preprocessing(letter_box, kernel), batch_size, ahead=ahead)
    steps = model.run(batches, [nms or NmsOptions()], statistics, augment=augment, parallel=frames.ahead)
    with closing(batches), closing(steps):
        for step in steps:
            yield from step.batch.failures
            for frame, found in zip(step.batch.items, step.found[0], strict=True):
                if isinstance(found, Detections):
                    statistics.objects.update(found.class_ids.tolist())
                    yield Result(frame=frame, names=model.names, detections=found, speed=step.speed)
                else:
                    yield Result(frame=frame, names=model.names, probabilities=found, speed=step.speed)
