"""Iterators that threads run a few items ahead of their consumer, in order."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

from utils.device import stay_single

T = TypeVar("T")
R = TypeVar("R")

WORKERS = max(1, min(4, (os.cpu_count() or 1) // 2))
"""Threads that decode or fit images. Each takes a few milliseconds of work at a time from a network that wants all cores."""

_POLL_S = 0.1


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], ahead: int, workers: int = WORKERS
) -> Generator[R, None, None]:
    """`function` of each item, in order. Threads work on up to `ahead` items in advance; with 0, the consumer's works on demand.

    `items` is iterated in the consumer's thread.
    """
    if not ahead:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, "ahead", initializer=stay_single, initargs=(torch.get_num_threads(),))
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Prefetch(Generic[T]):
    """Iterator over `items`, up to `ahead` of which a thread produces in advance; `close` ends the thread.

    An exception in `items` is raised to the consumer in order. A generator is closed in the thread in any case.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if not isinstance(item, _End):
            return item
        self.close()
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """End the thread after its current item."""
        self._stop.set()
        self._thread.join()

    def _run(self, items: Iterable[T]) -> None:
        end = _End(None)
        iterator = iter(items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:  # passed on to the consumer
            end = _End(error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        self._put(end)

    def _put(self, item: T | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
