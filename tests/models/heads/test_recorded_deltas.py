"""Losses of all heads compared with the original: the negative gradient equals the recorded delta, the cost the recorded cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.heads.base import Head, HeadLoss
from models.heads.detection import CellTargets, Detection
from models.plan import read_plan
from tests.paths import REFERENCE

RECORDINGS = sorted((REFERENCE / "delta").glob("*.npz"))


def load(path: Path) -> tuple[Head, Tensor, Any, dict[str, Any]]:
    recording = np.load(path)
    meta = json.loads(str(recording["meta"]))
    step = read_plan(path.with_suffix(".cfg")).steps[meta["layer"]]
    head = step.section.build(step.site)
    assert isinstance(head, Head)
    shape = step.site.input
    x = torch.from_numpy(recording["input"]).view(-1, shape.channels, shape.height, shape.width)
    return head, x, recording, meta


def loss_of(head: Head, x: Tensor, truth: Tensor, meta: dict[str, Any]) -> HeadLoss:
    if not isinstance(head, Detection):
        return head.loss(x, truth.view(len(x), -1, 6)[..., :5], (meta["net_w"], meta["net_h"]), meta["seen"])
    section = head.section  # its recorded ground truth is already a grid
    grid = truth.view(len(x), section.side**2, -1)
    cells = CellTargets(grid[..., 0] != 0, grid[..., 1 : 1 + section.classes], grid[..., 1 + section.classes :])
    return head.cell_loss(x, cells, meta["seen"])


def test_all_recordings_are_here() -> None:
    assert len(RECORDINGS) == 59


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_delta_and_cost(path: Path) -> None:
    head, x, recording, meta = load(path)
    x.requires_grad_()
    loss = loss_of(head, x, torch.from_numpy(recording["truth"]), meta)
    loss.value.backward(retain_graph=True)
    assert x.grad is not None
    delta = -x.grad.flatten(1).numpy()
    np.testing.assert_allclose(delta, recording["delta"], rtol=2e-4, atol=2e-6 * np.abs(recording["delta"]).max())
    assert loss.cost == pytest.approx(meta["cost"], rel=1e-5)
    assert loss.value.item() == pytest.approx(loss.cost, rel=1e-6)
    assert sum(loss.terms.values()) == pytest.approx(loss.cost, rel=1e-6)
    assert loss.factor == meta["options"].get("delta_normalizer", 1)
    assert torch.allclose(torch.autograd.grad(loss.objective, x)[0], x.grad * loss.factor)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_output(path: Path) -> None:
    head, x, recording, _ = load(path)
    found = head.recorded(head(x), x).flatten(1).numpy()
    np.testing.assert_allclose(found, recording["output"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["y_ciou_iouthresh", "g_giou_rightbottom", "r_v2"])
def test_scaled_and_lower_precision(name: str) -> None:
    head, x, recording, meta = load(REFERENCE / "delta" / f"{name}.npz")
    x = x.bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    loss = loss_of(head, x, torch.from_numpy(recording["truth"]), meta)
    (loss.value * 3).backward()
    exact = x.detach().float().requires_grad_()
    loss_of(head, exact, torch.from_numpy(recording["truth"]), meta).value.backward()
    assert x.grad is not None and exact.grad is not None and x.grad.dtype == torch.bfloat16
    assert torch.allclose(x.grad.float(), 3 * exact.grad, rtol=1e-2, atol=1e-5)
