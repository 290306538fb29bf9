"""Threads that work ahead: order, errors, how far ahead, and that they leave PyTorch's threads alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from data.prefetch import map_ahead


def named() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize(("ahead", "workers"), [(0, 1), (1, 1), (4, 2), (100, 3)])
def test_results_come_in_order(ahead: int, workers: int) -> None:
    def slow(number: int) -> int:
        time.sleep(0.01 if number % 3 == 0 else 0)
        return number * number

    assert list(map_ahead(slow, range(20), ahead, workers)) == [number * number for number in range(20)]
    assert not named()


def test_an_error_keeps_its_position() -> None:
    results = map_ahead(lambda number: 1 // number, [2, 1, 0, 3], 4, 2)
    assert next(results) == 0 and next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not named()


def test_reads_no_further_ahead_than_allowed_and_nothing_after_closing() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with closing(map_ahead(abs, items(), 3, 2)) as results:
        for number in range(1, 10):
            assert next(results) == number and taken <= number + 3
    assert not named()


def test_threads_leave_the_cores_to_the_network() -> None:
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert set(map_ahead(lambda _: torch.get_num_threads(), range(8), 4, 2)) == {1}
        assert torch.get_num_threads() == 2
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2], "threads to come have the usual number"
    finally:
        torch.set_num_threads(usual)
