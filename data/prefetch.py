"""Ordered iterators that threads run a few items ahead of the consumer."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from utils.device import stay_single

T = TypeVar("T")
R = TypeVar("R")

WORKERS = max(1, min(4, (os.cpu_count() or 1) // 2))
"""Threads that decode or preprocess images. They compete with the network, which uses all cores, so they are few."""

_END = object()


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], ahead: int, workers: int = WORKERS
) -> Generator[R, None, None]:
    """Yield `function` of each item, in order. `items` is iterated in the consumer's thread.

    ahead: number of items that threads process in advance; 0: the consumer's thread processes each item on demand.
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


def prefetch(items: Iterable[T], ahead: int) -> Generator[T, None, None]:
    """Yield the items, up to `ahead` of which a thread produces in advance.

    An exception in `items` is raised in order. If `items` is a generator, it is closed when this one ends or is closed.
    """
    iterator, pool = iter(items), ThreadPoolExecutor(1, "prefetch")
    waiting: deque[Future[Any]] = deque(pool.submit(next, iterator, _END) for _ in range(ahead))
    try:
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()
