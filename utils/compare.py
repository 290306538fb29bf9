"""Labels beside predictions: what a network misses and makes up in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.detections import Detections
from utils.draw import Colour, Image, class_name, draw_boxes
from utils.files import atomic_write
from utils.truth import Truth

_HEIGHT_PX = 640
_GAP_PX = 8
_CAPTION_PX = 34
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
    label_texts = [class_name(names, i) for i in truth.class_ids.tolist()]
    found_colours = [FOUND if r else WRONG for r in right]
    found_texts = [f"{class_name(names, i)} {score:.2f}" for _, score, i in found]
    missed = int((~hits & ~aside).sum())
    panels = [
        _panel(resized, truth.xyxy * scale, label_texts, label_colours,
               f"labels: {int((~aside).sum())}, missed (red): {missed}"),
        _panel(resized, found.xyxy * scale, found_texts, found_colours,
               f"predictions: {len(found)}, wrong (orange): {int((~right).sum())}"),
    ]  # fmt: skip
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def _panel(resized: Image, xyxy: NDArray[np.floating], texts: list[str], colours: list[Colour], caption: str) -> Image:
    panel = draw_boxes(resized, xyxy, colours, texts)
    strip = np.full((_CAPTION_PX, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, caption, (6, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([strip, panel])


def save_picture(path: str | Path, picture: Image) -> None:
    """Write a uint8 RGB picture as JPEG, whole or not at all."""
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert ok, f"JPEG of {picture.shape}"
    with atomic_write(path) as stream:
        stream.write(data.tobytes())
