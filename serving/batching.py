"""The network's thread, which runs waiting images as one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from inference.backends import ExportedModel
from inference.predictor import Model, NmsOptions
from utils.letterbox import Letterbox


class _Waiting(NamedTuple):
    pixels: NDArray[np.float32]
    letterbox: Letterbox
    options: NmsOptions
    result: Future[Any]


class NetworkThread:
    """A thread that runs the network on submitted images, up to `most` with the same options in a batch, without delay.

    images, batches, seconds: totals so far, and the time spent in the model.
    """

    def __init__(self, model: Model, most: int) -> None:
        self._model, self._most = model, most
        if isinstance(model.network, ExportedModel) and model.network.metadata.batch is not None:
            self._most = model.network.metadata.batch  # the only size it accepts
        self.images, self.batches, self.seconds = 0, 0, 0.0
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._closed = False
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def submit(self, pixels: NDArray[np.float32], letterbox: Letterbox, options: NmsOptions) -> Future[Any]:
        """Submit an input, float32 (channels, height, width); return the future result of `Model.postprocess`."""
        waiting = _Waiting(pixels, letterbox, options, Future())
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.result

    def close(self) -> None:
        """Stop the thread after its current batch."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # per thread; the preprocessing threads use one each
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                batch = [each for each in self._next_batch() if each.result.set_running_or_notify_cancel()]
            if not batch:  # their clients have disconnected
                continue
            try:
                found = self._predict(batch)
            except Exception as error:  # raised again by the waiting futures
                for each in batch:
                    each.result.set_exception(error)
                continue
            for each, result in zip(batch, found, strict=True):
                each.result.set_result(result)

    def _next_batch(self) -> list[_Waiting]:
        """Take the longest-waiting input and those with the same options; the others keep their order."""
        options = self._waiting[0].options
        batch = [each for each in self._waiting if each.options == options][: self._most]
        taken = set(map(id, batch))
        self._waiting = deque(each for each in self._waiting if id(each) not in taken)
        return batch

    def _predict(self, batch: list[_Waiting]) -> list[Any]:
        start = time.perf_counter()
        with torch.inference_mode():
            outputs = self._model.forward(torch.from_numpy(np.stack([each.pixels for each in batch])))
            found = self._model.postprocess(outputs, [each.letterbox for each in batch], batch[0].options)
        self.images, self.batches = self.images + len(batch), self.batches + 1
        self.seconds += time.perf_counter() - start
        return found
