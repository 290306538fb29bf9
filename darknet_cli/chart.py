"""The original's training chart, in the same layout, so that its charts can be continued (image_opencv.cpp)."""

from __future__ import annotations

import cv2
import numpy as np

from data.image import Image, read_image
from utils.errors import InputError

_SIDE, _LEFT, _LINES = 1000, 60, 100  # pixels, pixels to the left of the axes, grid lines
_SIZE = _SIDE - _LEFT
_BLUE, _RED, _DARK_RED, _NAVY, _BLACK, _WHITE = (
    (0, 0, 255),
    (255, 0, 0),
    (200, 0, 0),
    (0, 0, 100),
    (0, 0, 0),
    (255, 255, 255),
)


class Chart:
    """A chart that gets one point per iteration (draw_train_chart, draw_train_loss).

    image: uint8 (1000, 1000, 3) RGB. path: a chart to continue. Raises InputError if it is not such an image.
    """

    def __init__(self, path: str | None, *, max_batches: int, max_loss: float, metric: str) -> None:
        self._max_batches, self._max_loss, self._metric = max_batches, max_loss, metric
        self._accuracy = self._best = 0.0
        self._measured_at = self._labelled_at = 0
        if path:
            self.image: Image = read_image(path).copy()
            if self.image.shape != (_SIDE, _SIDE, 3):
                height, width = self.image.shape[:2]
                raise InputError(f"{path}: has {width} x {height} pixels, expected a chart of {_SIDE} x {_SIDE}")
        else:
            self.image = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
            self._draw_grid()

    def _text(self, text: str, at: tuple[int, int], colour: tuple[int, int, int], width: int = 1) -> None:
        cv2.putText(self.image, text, at, cv2.FONT_HERSHEY_COMPLEX_SMALL, 0.7, colour, width, cv2.LINE_AA)

    def _draw_grid(self) -> None:
        for number in range(_LINES + 1):
            place, main = number * _SIZE // _LINES, number % 10 == 0
            colour = (128, 128, 128) if main else (224, 224, 224)
            if number:
                cv2.line(self.image, (_LEFT, place), (_SIDE, place), colour)
            cv2.line(self.image, (_LEFT + place, _SIZE), (_LEFT + place, 0), colour)
            if main and number:
                self._text(f"{self._max_loss * (_LINES - number) / _LINES:2.1f}", (30, place + 3), _BLACK)
            if main:
                self._text(str(self._max_batches * number // _LINES), (_LEFT + place - 20, _SIZE + 15), _BLACK)
        self._text("Loss", (10, 60), _BLUE)
        self._text("Iteration number", (_SIZE // 2, _SIDE - 10), _BLACK)
        self._text(f"in cfg max_batches={self._max_batches}", (_SIZE - 195, _SIDE - 10), _BLACK)

    def add(self, iteration: int, loss: float, accuracy: float | None, hours: float) -> None:
        """Add a point for the average loss. accuracy: 0..1 if it was measured at this iteration, else None."""
        x, y = self._x(iteration), max(int(_SIZE * (1 - loss / self._max_loss)), 1)
        cv2.circle(self.image, (x, y), 1, _BLUE, cv2.FILLED)
        if accuracy is not None:
            self._add_accuracy(iteration, accuracy)
        cv2.rectangle(self.image, (15, _SIZE + 18), (815, _SIZE + 38), _WHITE, cv2.FILLED)
        state = f"current avg loss = {loss:2.4f}    iteration = {iteration}    approx. time left = {hours:2.2f} hours"
        self._text(state, (15, _SIZE + 33), _NAVY)

    def _x(self, iteration: int) -> int:
        return int(_LEFT + _SIZE * iteration / self._max_batches)

    def _add_accuracy(self, iteration: int, accuracy: float) -> None:
        y = int(_SIZE * (1 - accuracy))
        if self._measured_at:
            before = self._x(self._measured_at), int(_SIZE * (1 - self._accuracy))
            cv2.line(self.image, before, (self._x(iteration), y), _RED)
        else:
            self._text(self._metric, (10, 12), _RED)
        self._outlined(f"{100 * accuracy:2.1f}% ", (10, 28))
        overdue = iteration - self._labelled_at >= self._max_batches // 10
        if abs(self._accuracy - accuracy) > 0.1 or accuracy > self._best or overdue:
            self._labelled_at, self._best = iteration, max(self._best, accuracy)
            self._outlined(f"{100 * accuracy:2.0f}% ", (self._x(iteration) - 30, y + 15))
        self._accuracy, self._measured_at = accuracy, iteration

    def _outlined(self, text: str, at: tuple[int, int]) -> None:
        self._text(text, at, _WHITE, 5)
        self._text(text, at, _DARK_RED)
