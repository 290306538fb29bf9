"""A thread that runs an iterator a few items ahead of its reader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.1


class Prefetch(Generic[T]):
    """Iterator over `items`, made `ahead` at a time in a thread; `close` (or the end of `with`) ends the thread.

    An exception of `items` is raised to the reader in its place in the order. `items` may be a generator: it is
    closed in the thread, whatever happens to the reader.
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
        """Stop after the item being made; no more items come."""
        self._stop.set()
        self._thread.join()

    def _run(self, items: Iterable[T]) -> None:
        end = _End(None)
        iterator = iter(items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:  # handed to the reader, not handled
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
