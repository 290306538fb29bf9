"""NMS compared with a plain double loop over boxes, as in src/box.c."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from utils import nms
from utils.boxes import diou, iou, pairwise
from utils.nms import suppress


def overlaps(cxcywh: Tensor, kind: str, beta: float) -> Tensor:
    if kind in ("default", "cornersnms"):
        return pairwise(iou, cxcywh, cxcywh)
    return pairwise(lambda a, b: diou(a, b, exponent=0.6 if kind == "greedynms" else beta), cxcywh, cxcywh)


def slow(cxcywh: Tensor, scores: Tensor, threshold: float, kind: str, beta: float, agnostic: bool) -> list[list[float]]:
    """[row, class, score] of the remaining boxes, best first."""
    table = overlaps(cxcywh, kind, beta)
    candidates = [(i, k, float(scores[i, k])) for i, k in (scores > 0).nonzero().tolist()]
    candidates.sort(key=lambda c: -c[2])
    alive: list[tuple[int, int, float]] = []
    for i, k, score in candidates:
        rivals = (j for j, other, _ in alive if agnostic or other == k)
        if not any(table[j, i] > threshold for j in rivals):
            alive.append((i, k, score))
    return [list(c) for c in alive]


def crowd(n: int, classes: int, seed: int, *, ties: bool = False, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cxcywh = torch.rand(n, 4, generator=generator) * torch.tensor([spread, spread, 0.3, 0.3]) + 0.02
    scores = torch.rand(n, classes, generator=generator)
    if ties:
        cxcywh, scores = (cxcywh * 8).round() / 8 + 0.01, (scores * 4).round() / 4
    return cxcywh, scores * (scores > 0.3)


def as_rows(found: nms.Suppressed) -> list[list[float]]:
    return [[int(i), int(k), float(s)] for i, k, s in zip(*found, strict=True)]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("kind", ["default", "greedynms", "diounms", "cornersnms"])
@pytest.mark.parametrize(
    ("n", "classes", "ties", "spread"), [(60, 3, False, 1), (90, 2, True, 1), (120, 1, False, 0.1)]
)
def test_same_boxes_as_the_double_loop(
    monkeypatch: pytest.MonkeyPatch, n: int, classes: int, ties: bool, spread: float, kind: str, agnostic: bool
) -> None:
    cxcywh, scores = crowd(n, classes, seed=n, ties=ties, spread=spread)
    for threshold, pairs in ((0.0, 1 << 21), (0.3, -1), (0.45, 1 << 21), (0.9, -1), (0.6, 1 << 21), (0.6, -1)):
        monkeypatch.setattr(nms, "PAIRS", pairs)  # negative: in blocks
        found = suppress(cxcywh, scores, threshold, kind=kind, beta=0.8, agnostic=agnostic)
        assert as_rows(found) == slow(cxcywh, scores, threshold, kind, 0.8, agnostic)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(("block", "chunk"), [(1, 1), (2, 3), (7, 2), (64, 5)])
def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch, block: int, chunk: int, agnostic: bool) -> None:
    monkeypatch.setattr(nms, "PAIRS", -1)
    monkeypatch.setattr(nms, "BLOCK", block)
    monkeypatch.setattr(nms, "CHUNK", chunk)
    cxcywh, scores = crowd(24, 3, seed=5, ties=True)
    found = suppress(cxcywh, scores, 0.3, agnostic=agnostic)
    assert as_rows(found) == slow(cxcywh, scores, 0.3, "default", 0.6, agnostic)


@pytest.mark.parametrize("pairs", [1 << 21, -1])
def test_a_chain_is_settled_in_order(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """Each box overlaps only the next one: every other box is kept, which takes the most fixpoint iterations."""
    monkeypatch.setattr(nms, "PAIRS", pairs)
    cxcywh = torch.tensor([[i * 0.5, 0.5, 1.0, 1.0] for i in range(100)])
    scores = torch.linspace(1, 0.5, 100)[:, None]
    assert suppress(cxcywh, scores, 0.3).box_index.tolist() == list(range(0, 100, 2))


def test_overlap_equal_to_the_threshold_survives() -> None:
    cxcywh = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.5, 0.25, 1.0, 0.5]])
    scores = torch.tensor([[0.9], [0.8]])
    assert len(suppress(cxcywh, scores, 0.5).score) == 2
    assert len(suppress(cxcywh, scores, 0.4999).score) == 1


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (5, 0)])
def test_nothing_above_the_threshold(shape: tuple[int, int]) -> None:
    found = suppress(torch.rand(shape[0], 4), torch.zeros(shape))
    assert [len(part) for part in found] == [0, 0, 0]
    assert found.box_index.dtype == found.class_id.dtype == torch.int64


def test_max_det_keeps_the_best() -> None:
    cxcywh, scores = crowd(50, 3, seed=1)
    everything = as_rows(suppress(cxcywh, scores))
    assert as_rows(suppress(cxcywh, scores, max_det=4)) == everything[:4]


def test_half_precision_boxes_are_compared_in_float32() -> None:
    cxcywh, scores = crowd(50, 3, seed=2)
    found = suppress(cxcywh.half(), scores)
    assert as_rows(found) == as_rows(suppress(cxcywh.half().float(), scores))


def test_overflowed_boxes_do_not_affect_the_others() -> None:
    cxcywh = torch.tensor([[0.5, 0.5, torch.inf, 0.2], [0.5, torch.nan, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]).repeat(2, 1)
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6], [0.5], [0.4]])
    assert {2, 5} & set(suppress(cxcywh, scores).box_index.tolist()) == {2}
