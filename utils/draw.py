"""Drawing of detections, ground truth and grids of images."""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.detections import Detections, GroundTruth

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_PX = 22.0  # height of a capital letter at scale 1
_MIN_TEXT_PX = 9.0
_TEXT_SHARE = 0.018  # text height as a fraction of the image's mean side
_MAX_PLACED = 100  # labels that avoid each other; more are unreadable anyway
_GOLDEN = 0.61803398875
_OPENCV_DRAWS_UNICODE = int(cv2.__version__.split(".")[0]) >= 5


def annotate(
    image: Image,
    detections: Detections,
    names: Sequence[str],
    *,
    thickness: int | None = None,
    labels: bool = True,
    scores: bool = True,
) -> Image:
    """Return a copy of `image`, uint8 (height, width, 3) RGB, with a box and a label for each detection.

    The best detections are drawn on top, labels on top of all boxes.
    thickness: of lines in pixels; None: proportional to the image.
    """
    best_last = detections.select(slice(None, None, -1))
    texts = [class_name(names, i) + (f" {score:.2f}" if scores else "") for _, score, i in best_last]
    colours = [class_colour(class_id) for class_id in best_last.class_ids.tolist()]
    return draw_boxes(image, best_last.xyxy, colours, texts if labels else [], thickness)


def draw_boxes(
    image: Image,
    xyxy: NDArray[np.floating],
    colours: Sequence[Colour],
    texts: Sequence[str],
    thickness: int | None = None,
) -> Image:
    """Return a copy of `image` with boxes (n, 4) in pixels and a label for each; no labels if `texts` is empty.

    Later labels are placed first and drawn on top.
    """
    drawn = image.copy()
    line = thickness or line_thickness(image.shape[1], image.shape[0])
    places = [_inside(box, drawn) for box in xyxy]
    for (left, top, right, bottom), colour in zip(places, colours, strict=True):
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, line)
    if texts:
        _labels(drawn, places, colours, [printable(text) for text in texts], line)
    return drawn


def class_name(names: Sequence[str], class_id: int) -> str:
    """Return the name of a class, or "class 7" if it has none."""
    return names[class_id] if class_id < len(names) and names[class_id] else f"class {class_id}"


@lru_cache(maxsize=4096)
def class_colour(class_id: int) -> Colour:
    """Return the RGB colour of a class, the same in every run; consecutive classes differ strongly in hue."""
    hue = (0.02 + class_id * _GOLDEN) % 1.0
    lightness, saturation = ((0.50, 0.85), (0.62, 0.75), (0.38, 0.80))[class_id % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def line_thickness(width_px: int, height_px: int) -> int:
    """Return the line thickness in pixels for an image of this size."""
    return max(1, round((width_px + height_px) / 2 * 0.0035))


def printable(text: str) -> str:
    """Return `text` as OpenCV can draw it: before OpenCV 5, accents are dropped and other characters become "?"."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if _OPENCV_DRAWS_UNICODE:
        return text
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in plain)


def _inside(box: NDArray[np.floating], image: Image) -> Box:
    """Return the box in whole pixels, clipped to the image."""
    height, width = image.shape[:2]
    finite = np.nan_to_num(box.astype(np.float64), nan=0, posinf=1e9, neginf=-1e9)
    clipped = np.clip(finite, 0, [width - 1, height - 1, width - 1, height - 1])
    left, top, right, bottom = (int(each) for each in np.rint(clipped))
    return left, top, right, bottom


def _labels(image: Image, places: Sequence[Box], colours: Sequence[Colour], texts: Sequence[str], line: int) -> None:
    """Draw a filled tab with the text of each box, if possible where it covers no other tab."""
    height, width = image.shape[:2]
    scale = max(_MIN_TEXT_PX, _TEXT_SHARE * (width + height) / 2) / _FONT_PX
    weight = max(1, round(scale * 1.6))
    taken = np.empty((len(texts), 4), np.int64)
    tabs: list[tuple[Box, int, int]] = []
    for place, text in zip(reversed(places), reversed(texts), strict=True):
        (text_w, text_h), below = cv2.getTextSize(text, _FONT, scale, weight)
        pad = max(2, round(text_h * 0.3))
        choices = _tabs(place, (text_w + 2 * pad, text_h + below // 2 + 2 * pad), (width, height), line)
        others = taken[: len(tabs) if len(tabs) < _MAX_PLACED else 0]
        tab = next((choice for choice in choices if _is_free(choice, others)), choices[0])
        taken[len(tabs)] = tab
        tabs.append((tab, pad, text_h))
    for ((left, top, right, bottom), pad, text_h), colour, text in zip(reversed(tabs), colours, texts, strict=True):
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), colour, cv2.FILLED)
        ink = (255, 255, 255) if _luminance(colour) < 0.45 else (0, 0, 0)
        cv2.putText(image, text, (left + pad, top + pad + text_h), _FONT, scale, ink, weight, cv2.LINE_AA)


def _tabs(place: Box, tab_wh: tuple[int, int], image_wh: tuple[int, int], line: int) -> list[Box]:
    """Return positions of a tab in order of preference: above the box, inside, below, at its left or right edge."""
    left, top, right, bottom = place
    wide, high = tab_wh
    lowest = image_wh[1] - high
    above = top - line // 2 - high
    heights = [
        y for y in (above, top + line // 2 + 1, bottom + line // 2 + 1, bottom - line // 2 - high) if 0 <= y <= lowest
    ]
    columns = [max(0, min(x, image_wh[0] - wide)) for x in (left - line // 2, right + line // 2 + 1 - wide)]
    return [(x, y, x + wide, y + high) for y in heights or [max(0, min(above, lowest))] for x in columns]


def _is_free(tab: Box, taken: NDArray[np.int64]) -> bool:
    """Return whether a tab overlaps none of `taken`, (n, 4)."""
    left, top, right, bottom = tab
    apart = (left >= taken[:, 2]) | (right <= taken[:, 0]) | (top >= taken[:, 3]) | (bottom <= taken[:, 1])
    return bool(apart.all())


@lru_cache(maxsize=4096)
def _luminance(colour: Colour) -> float:
    """Relative luminance in [0, 1] (WCAG 2)."""
    linear = (np.asarray(colour) / 255) ** 2.2
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


CELL_PX = 416
MAX_GRID_IMAGES = 16
_EMPTY, _AROUND = 255, 114


class GridImage(NamedTuple):
    """An image of a grid, uint8 (height, width, 3) RGB. xyxy: (n, 4) in pixels. texts: labels of the boxes."""

    image: Image
    xyxy: NDArray[np.floating]
    class_ids: Sequence[int]
    texts: Sequence[str]


def image_grid(shown: Sequence[GridImage]) -> Image:
    """Return the first 16 images in a square grid, uint8 RGB. Cells have the median aspect ratio of the images."""
    shown = shown[:MAX_GRID_IMAGES]
    assert shown, "no images for a grid"
    columns = math.ceil(math.sqrt(len(shown)))
    ratio = float(np.median([each.image.shape[1] / each.image.shape[0] for each in shown]))
    width, height = (round(CELL_PX * min(1.0, side)) for side in (ratio, 1 / ratio))
    cells = np.full((math.ceil(len(shown) / columns) * columns, height, width, 3), _EMPTY, np.uint8)
    for place, each in enumerate(shown):
        cells[place] = _cell(each, (width, height))
    rows = cells.reshape(-1, columns, height, width, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, 3)


def _cell(shown: GridImage, size_wh: tuple[int, int]) -> Image:
    """Return the image resized to fit and centred in a cell. Boxes are drawn after resizing."""
    height, width = shown.image.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    fitted_wh = [max(1, min(round(side * scale), most)) for side, most in zip((width, height), size_wh, strict=True)]
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = np.asarray(cv2.resize(shown.image, fitted_wh, interpolation=kernel), np.uint8)
    colours = [class_colour(class_id) for class_id in shown.class_ids]
    drawn = draw_boxes(fitted, np.asarray(shown.xyxy) * scale, colours, shown.texts)
    cell = np.full((size_wh[1], size_wh[0], 3), _AROUND, np.uint8)
    left, top = (size_wh[0] - fitted_wh[0]) // 2, (size_wh[1] - fitted_wh[1]) // 2
    cell[top : top + fitted_wh[1], left : left + fitted_wh[0]] = drawn
    cv2.rectangle(cell, (0, 0), (size_wh[0] - 1, size_wh[1] - 1), (_EMPTY, _EMPTY, _EMPTY), 1)
    return cell


_HEIGHT_PX = 640
_GAP_PX = 8
_CAPTION_PX = 34
FOUND, MISSED, WRONG, PASSED_OVER = (46, 160, 67), (214, 39, 40), (255, 140, 0), (140, 140, 140)


def comparison(
    image: Image,
    truth: GroundTruth,
    found: Detections,
    names: Sequence[str],
    hits: NDArray[np.bool_],
    right: NDArray[np.bool_],
) -> Image:
    """Return two panels side by side, uint8 RGB, with labels and predictions.

    Labels are green (found), red (missed) or grey (not counted); predictions are green (correct) or orange (wrong).

    image: uint8 (height, width, 3), RGB.
    hits: bool (labels,), whether each label was found.
    right: bool (detections,), whether each prediction is correct.
    """
    scale = _HEIGHT_PX / image.shape[0]
    size_wh = (max(1, round(image.shape[1] * scale)), _HEIGHT_PX)
    resized = np.asarray(
        cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8
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
