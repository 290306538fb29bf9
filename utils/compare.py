"""Labels beside predictions: what a network misses and makes up in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.detections import Detections
from utils.files import atomic_write
from utils.truth import Truth

Image = NDArray[np.uint8]
_HEIGHT_PX = 640
_GAP_PX = 8
_CAPTION_PX = 34
_FONT = cv2.FONT_HERSHEY_SIMPLEX
FOUND, MISSED, WRONG, PASSED_OVER = (46, 160, 67), (214, 39, 40), (255, 140, 0), (140, 140, 140)


def comparison(
    picture: Image,
    truth: Truth,
    found: Detections,
    names: Sequence[str],
    hits: NDArray[np.bool_],
    right: NDArray[np.bool_],
) -> Image:
    """Two panels side by side, uint8 RGB: labels (green found, red missed, grey not counted), predictions (green
    right, orange wrong).

    picture: uint8 (height, width, 3), RGB. hits: bool (labels,), found. right: bool (detections,).
    """
    scale = _HEIGHT_PX / picture.shape[0]
    size_wh = (max(1, round(picture.shape[1] * scale)), _HEIGHT_PX)
    resized = np.asarray(
        cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8
    )
    aside = truth.crowd | truth.difficult
    label_colours = [PASSED_OVER if a else FOUND if h else MISSED for a, h in zip(aside, hits, strict=True)]
    label_texts = [_name(names, i) for i in truth.class_ids.tolist()]
    found_colours = [FOUND if r else WRONG for r in right]
    found_texts = [f"{_name(names, i)} {score:.2f}" for _, score, i in found]
    missed = int((~hits & ~aside).sum())
    panels = [
        _panel(resized, truth.xyxy * scale, label_texts, label_colours,
               f"labels: {int((~aside).sum())}, missed (red): {missed}"),
        _panel(resized, found.xyxy * scale, found_texts, found_colours,
               f"predictions: {len(found)}, wrong (orange): {int((~right).sum())}"),
    ]  # fmt: skip
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def _name(names: Sequence[str], class_id: int) -> str:
    return names[class_id] if class_id < len(names) else f"class {class_id}"


def _panel(
    resized: Image, xyxy: NDArray[np.floating], texts: list[str], colours: list[tuple[int, int, int]], caption: str
) -> Image:
    panel = np.ascontiguousarray(resized.copy())
    corners = np.round(xyxy).clip(-32000, 32000).astype(int).tolist()
    for (left, top, right, bottom), colour in zip(corners, colours, strict=True):
        cv2.rectangle(panel, (left, top), (right, bottom), colour, 2, cv2.LINE_AA)
    for (left, top, *_), text, colour in zip(corners, texts, colours, strict=True):
        (width, height), base = cv2.getTextSize(text, _FONT, 0.5, 1)
        x = min(max(left, 0), max(panel.shape[1] - width - 4, 0))
        y = min(max(top, height + base), panel.shape[0])
        cv2.rectangle(panel, (x, y - height - base), (x + width + 4, y), colour, cv2.FILLED)
        cv2.putText(panel, text, (x + 2, y - base + 1), _FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    strip = np.full((_CAPTION_PX, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, caption, (6, 23), _FONT, 0.6, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([strip, panel])


def save_picture(path: str | Path, picture: Image) -> None:
    """Write a uint8 RGB picture as JPEG, whole or not at all."""
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert ok, f"JPEG of {picture.shape}"
    with atomic_write(path) as stream:
        stream.write(data.tobytes())
