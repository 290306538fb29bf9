"""Detections drawn into pictures."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.detections import Detections

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_PX = 22.0  # height of a capital letter of that font at scale 1
_LEAST_TEXT_PX = 9.0
_TEXT_SHARE = 0.018  # height of the text in parts of the picture's mean side
_CROWD = 100  # labels that look for a place of their own; more cannot be read in any way
_GOLDEN = 0.61803398875
_OPENCV_DRAWS_UNICODE = int(cv2.__version__.split(".")[0]) >= 5


def annotate(
    picture: Image,
    detections: Detections,
    names: Sequence[str],
    *,
    thickness: int | None = None,
    labels: bool = True,
    scores: bool = True,
) -> Image:
    """A copy of `picture`, uint8 (height, width, 3) RGB, with a box and a label for each detection.

    thickness: of lines in pixels; None: in proportion to the picture. The best detections are drawn last, on top, and
    labels on top of all boxes.
    """
    best_last = detections.select(slice(None, None, -1))
    texts = [class_name(names, i) + (f" {score:.2f}" if scores else "") for _, score, i in best_last]
    colours = [class_colour(class_id) for class_id in best_last.class_ids.tolist()]
    return draw_boxes(picture, best_last.xyxy, colours, texts if labels else [], thickness)


def draw_boxes(
    picture: Image,
    xyxy: NDArray[np.floating],
    colours: Sequence[Colour],
    texts: Sequence[str],
    thickness: int | None = None,
) -> Image:
    """A copy of `picture` with boxes (n, 4) in pixels and a label for each of them, or none where `texts` is empty.

    Later labels have the first choice of a place and lie on top.
    """
    drawn = picture.copy()
    line = thickness or line_thickness(picture.shape[1], picture.shape[0])
    places = [_inside(box, drawn) for box in xyxy]
    for (left, top, right, bottom), colour in zip(places, colours, strict=True):
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, line)
    if texts:
        _labels(drawn, places, colours, [printable(text) for text in texts], line)
    return drawn


def class_name(names: Sequence[str], class_id: int) -> str:
    """Its name, or "class 7" where there is none."""
    return names[class_id] if class_id < len(names) and names[class_id] else f"class {class_id}"


@lru_cache(maxsize=4096)
def class_colour(class_id: int) -> Colour:
    """RGB of a class, the same in every run. Neighbouring classes are far apart in hue."""
    hue = (0.02 + class_id * _GOLDEN) % 1.0
    lightness, saturation = ((0.50, 0.85), (0.62, 0.75), (0.38, 0.80))[class_id % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def line_thickness(width_px: int, height_px: int) -> int:
    """Thickness of lines that suits a picture of this size."""
    return max(1, round((width_px + height_px) / 2 * 0.0035))


def printable(text: str) -> str:
    """`text` in the letters that this OpenCV's font has: accents are dropped and the rest is "?" before OpenCV 5."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if _OPENCV_DRAWS_UNICODE:
        return text
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in plain)


def _inside(box: NDArray[np.floating], picture: Image) -> Box:
    """The box's pixels that lie in the picture."""
    height, width = picture.shape[:2]
    finite = np.nan_to_num(box.astype(np.float64), nan=0, posinf=1e9, neginf=-1e9)
    clipped = np.clip(finite, 0, [width - 1, height - 1, width - 1, height - 1])
    left, top, right, bottom = (int(each) for each in np.rint(clipped))
    return left, top, right, bottom


def _labels(picture: Image, places: Sequence[Box], colours: Sequence[Colour], texts: Sequence[str], line: int) -> None:
    """A filled tab with its text for each box, on its left top corner or where it hides no other tab."""
    height, width = picture.shape[:2]
    scale = max(_LEAST_TEXT_PX, _TEXT_SHARE * (width + height) / 2) / _FONT_PX
    weight = max(1, round(scale * 1.6))
    taken = np.empty((len(texts), 4), np.int64)
    tabs: list[tuple[Box, int, int]] = []
    for place, text in zip(reversed(places), reversed(texts), strict=True):
        (text_w, text_h), below = cv2.getTextSize(text, _FONT, scale, weight)
        pad = max(2, round(text_h * 0.3))
        choices = _tabs(place, (text_w + 2 * pad, text_h + below // 2 + 2 * pad), (width, height), line)
        others = taken[: len(tabs) if len(tabs) < _CROWD else 0]
        tab = next((choice for choice in choices if _is_free(choice, others)), choices[0])
        taken[len(tabs)] = tab
        tabs.append((tab, pad, text_h))
    for ((left, top, right, bottom), pad, text_h), colour, text in zip(reversed(tabs), colours, texts, strict=True):
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), colour, cv2.FILLED)
        ink = (255, 255, 255) if _luminance(colour) < 0.45 else (0, 0, 0)
        cv2.putText(picture, text, (left + pad, top + pad + text_h), _FONT, scale, ink, weight, cv2.LINE_AA)


def _tabs(place: Box, tab_wh: tuple[int, int], picture_wh: tuple[int, int], line: int) -> list[Box]:
    """Places for a tab: standing on the box, hanging inside it, below it, by its left or right edge; the first is the best."""
    left, top, right, bottom = place
    wide, high = tab_wh
    lowest = picture_wh[1] - high
    above = top - line // 2 - high
    heights = [
        y for y in (above, top + line // 2 + 1, bottom + line // 2 + 1, bottom - line // 2 - high) if 0 <= y <= lowest
    ]
    columns = [max(0, min(x, picture_wh[0] - wide)) for x in (left - line // 2, right + line // 2 + 1 - wide)]
    return [(x, y, x + wide, y + high) for y in heights or [max(0, min(above, lowest))] for x in columns]


def _is_free(tab: Box, taken: NDArray[np.int64]) -> bool:
    """Whether a tab hides none of those that are `taken`, (n, 4)."""
    left, top, right, bottom = tab
    apart = (left >= taken[:, 2]) | (right <= taken[:, 0]) | (top >= taken[:, 3]) | (bottom <= taken[:, 1])
    return bool(apart.all())


@lru_cache(maxsize=4096)
def _luminance(colour: Colour) -> float:
    """Relative luminance in [0, 1] (WCAG 2)."""
    linear = (np.asarray(colour) / 255) ** 2.2
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
