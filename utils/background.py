"""A thread that consumes items in the background."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Consumer(Generic[T]):
    """A thread that runs `consume` on the items passed to `put`, up to `most` of which wait.

    error: what `consume` raised; `put` raises it again, and items that wait are dropped.
    """

    def __init__(self, consume: Callable[[Iterator[T]], None], most: int, name: str) -> None:
        self.error: Exception | None = None
        self._queue: queue.Queue[T | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._run, args=(consume,), name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item, waiting while the queue is full."""
        if self.error is not None:
            raise self.error
        self._queue.put(item)

    def finish(self) -> None:
        """Wait until all items have been consumed."""
        self._queue.put(None)
        self._thread.join()

    def _run(self, consume: Callable[[Iterator[T]], None]) -> None:
        items = self._items()
        try:
            consume(items)
        except Exception as error:
            self.error = error
            for _ in items:  # so that `put` never waits for this thread
                pass

    def _items(self) -> Iterator[T]:
        while (item := self._queue.get()) is not None:
            yield item
