"""Detection in uploaded files, frame by frame."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.frames import Frame, read_video
from data.image import declared_header, read_image
from data.video import open_video
from inference.predictor import Model, NmsOptions
from inference.results import TOP
from utils.detections import Detections
from utils.errors import InputError

MOST_PIXELS = 50_000_000
_HEAD = 12
_JPEG_QUALITY = 85


class UnknownKind(InputError):
    """The upload is neither an image nor a video of an accepted kind."""


@dataclass(frozen=True, kw_only=True)
class DetectionRequest:
    """What a client asks for. images: return each frame as a JPEG too, for display."""

    conf: float = 0.25
    iou: float = 0.45
    images: bool = False


class DetectionService:
    """Detects objects in uploads, or classifies them; requests take turns on the network, frame by frame.

    most_frames: frames read of a video. images, seconds: frames so far, and the time that the model took for them.
    """

    def __init__(self, model: Model, *, most_frames: int) -> None:
        self.model, self.most_frames = model, most_frames
        self.images, self.seconds = 0, 0.0
        self._turn = threading.Lock()

    def frames(self, path: Path, request: DetectionRequest) -> Iterator[dict[str, Any]]:
        """Plain data for each frame of an image or video file, and at last {"complete": whether all were read}.

        Raises InputError for a file that cannot be used, also in the middle of a video.
        """
        complete = True
        for frame in _frames(path):
            if frame.index >= self.most_frames:
                complete = False
                break
            with self._turn:
                start = time.perf_counter()
                (found,) = self.model.predict(
                    [frame.image], NmsOptions(conf=request.conf, iou=request.iou, max_det=1000)
                )
                self.images, self.seconds = self.images + 1, self.seconds + time.perf_counter() - start
            width, height = frame.size_wh
            facts: dict[str, Any] = {"width": width, "height": height, "index": frame.index}
            if isinstance(found, Detections):
                facts["detections"] = plain(found, self.model.names)
            else:
                facts["classes"] = best_classes(found, self.model.names)
            if frame.video is not None:
                facts["time_s"] = round(frame.time_s, 4)
            if request.images:
                facts["jpeg"] = _jpeg(frame.image)
            yield facts
        yield {"complete": complete}


def _frames(path: Path) -> Iterator[Frame]:
    if is_video(path):
        with open_video(str(path)) as (_, video):
            _refuse_huge(*video.size_wh)
        yield from read_video(str(path))
    else:
        yield Frame(image=read_image(path), path=str(path))


def plain(found: Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as a JSON list; boxes are left, top, right, bottom in pixels of the image."""
    return [
        {
            "xyxy": [round(float(value), 2) for value in box],
            "score": round(score, 5),
            "class_id": class_id,
            "name": names[class_id],
        }
        for box, score, class_id in found
    ]


def best_classes(probabilities: NDArray[np.float32], names: Sequence[str]) -> list[dict[str, Any]]:
    """The most probable classes as a JSON list, best first. probabilities: (classes,)."""
    best = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
    return [{"score": round(float(probabilities[each]), 5), "class_id": each, "name": names[each]} for each in best]


def is_video(path: Path) -> bool:
    """Whether an upload is a video; only containers that cannot refer to other files or addresses are accepted.

    Its first bytes decide, not its name or the client's content type. Raises UnknownKind, and InputError for a damaged or
    huge image.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    with path.open("rb") as stream:
        header = declared_header(stream, "upload")
    if header is None:
        raise UnknownKind("upload: expected an image (JPEG, PNG, WebP, BMP, GIF) or a video (MP4, MOV, WebM, MKV, AVI)")
    _refuse_huge(*header.size_wh)
    return False


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise InputError(f"upload: {width}x{height} pixels, expected at most {MOST_PIXELS:,} in all")


def _jpeg(image: NDArray[np.uint8]) -> str:
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return base64.b64encode(encoded.tobytes()).decode("ascii")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors name the upload instead of the temporary file `path`."""
    try:
        yield
    except UnknownKind:
        raise
    except InputError as error:
        raise InputError(str(error).replace(str(path), "upload")) from None
