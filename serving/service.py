"""From an uploaded file to what was found in it, frame by frame."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.image import declared_size, read_image
from data.video import open_video, video_frames
from inference.detector import Selection
from inference.predictor import Predictor
from utils.detections import Detections
from utils.errors import InputError

MOST_PIXELS = 50_000_000
_HEAD = 12
_JPEG_QUALITY = 85


class UnknownKind(InputError):
    """The upload is neither an image nor a video of the kinds taken."""


@dataclass(frozen=True, kw_only=True)
class DetectionRequest:
    """What a client wants to know. images: send each frame along as a JPEG, for display."""

    conf: float = 0.25
    iou: float = 0.45
    images: bool = False


class DetectionService:
    """Finds objects in uploads; requests take turns on the network, frame by frame.

    names: of the classes. most_frames: frames of a video that are looked at.
    """

    def __init__(self, predictor: Predictor, names: Sequence[str], *, most_frames: int) -> None:
        self.predictor, self.names, self.most_frames = predictor, tuple(names), most_frames
        self._turn = threading.Lock()

    def frames(self, path: Path, question: DetectionRequest) -> Iterator[dict[str, Any]]:
        """For each frame of an image or video file its facts as plain data, and at last {"complete": whether all were seen}.

        Raises InputError for a file that cannot be used, also in the middle of a video.
        """
        video = is_video(path)
        complete = True
        for index, time_s, image in self._video(path) if video else self._image(path):
            if index >= self.most_frames:
                complete = False
                break
            yield self._found(image, question) | (
                {"index": index, "time_s": round(time_s, 4)} if video else {"index": 0}
            )
        yield {"complete": complete}

    def _found(self, image: NDArray[np.uint8], question: DetectionRequest) -> dict[str, Any]:
        with self._turn:
            (found,) = self.predictor.predict([image], Selection(conf=question.conf, iou=question.iou, max_det=1000))
        facts = {"width": image.shape[1], "height": image.shape[0], "detections": plain(found, self.names)}
        return facts | ({"jpeg": _jpeg(image)} if question.images else {})

    def _image(self, path: Path) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        yield 0, 0.0, read_image(path, upright=True)

    def _video(self, path: Path) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        with open_video(str(path)) as (capture, video):
            _refuse_huge(*video.size_wh)
            for index, image in video_frames(capture, video):
                yield index, index / video.fps, image


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


def is_video(path: Path) -> bool:
    """Whether an upload is a video; only containers that cannot refer to other files or addresses are taken.

    Its first bytes decide, neither its name nor what the client says. Raises UnknownKind, and InputError for a damaged or
    huge image.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    with path.open("rb") as stream:
        size_wh = declared_size(stream, "upload")
    if size_wh is None:
        raise UnknownKind("upload: expected an image (JPEG, PNG, WebP, BMP, GIF) or a video (MP4, MOV, WebM, MKV, AVI)")
    _refuse_huge(*size_wh)
    return False


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise InputError(f"upload: {width}x{height} pixels, expected at most {MOST_PIXELS:,} in all")


def _jpeg(image: NDArray[np.uint8]) -> str:
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return base64.b64encode(encoded.tobytes()).decode("ascii")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors speak of the upload, not of the temporary file `path`."""
    try:
        yield
    except UnknownKind:
        raise
    except InputError as error:
        raise InputError(str(error).replace(str(path), "upload")) from None
