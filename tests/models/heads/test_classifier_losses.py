"""[softmax], [cost] and [contrastive]: outputs, losses and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from models.network import Network
from models.plan import make_plan
from tests.models.heads.build import build_head
from utils.cfg import parse
from utils.detections import MASKED_TARGET
from utils.errors import InputError


@pytest.mark.parametrize(
    ("text", "groups", "temperature"), [("", 1, 1.0), ("groups=4\n", 4, 1.0), ("temperature=3\n", 1, 3.0)]
)
def test_softmax(text: str, groups: int, temperature: float) -> None:
    x = torch.randn(2, 12, 1, 1)
    expected = (x.view(2, groups, -1) / temperature).softmax(2).view(2, 12, 1, 1)
    torch.testing.assert_close(build_head(f"[softmax]\n{text}", 12, 1, 1)(x), expected)


def test_softmax_tree(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("a\nb\na1 0\na2 0\n")
    head = build_head("[softmax]\ntree=a.tree\n", 4, 1, 1, str(tmp_path / "net.cfg"))
    x = torch.randn(2, 4, 1, 1)
    torch.testing.assert_close(head(x), torch.cat((x[:, :2].softmax(1), x[:, 2:].softmax(1)), 1))


def test_softmax_loss() -> None:
    head = build_head("[softmax]\n", 3, 1, 1)
    x = torch.randn(2, 3, 1, 1).requires_grad_()
    truth = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    loss = head.loss(x, truth, (1, 1), 0)
    exact = F.cross_entropy(x.flatten(1), truth, reduction="sum")
    assert loss.cost == pytest.approx(exact.item())
    torch.testing.assert_close(torch.autograd.grad(loss.value, x)[0], torch.autograd.grad(exact, x)[0])


def test_softmax_tree_loss_is_that_of_the_groups_on_the_path(tmp_path: Path) -> None:
    """A cross entropy for each sibling group with a target, and nothing for the masked ones."""
    (tmp_path / "a.tree").write_text("a\nb\na1 0\na2 0\nb1 1\nb2 1\n")
    head = build_head("[softmax]\ntree=a.tree\n", 6, 1, 1, str(tmp_path / "net.cfg"))
    x = torch.randn(2, 6, 1, 1).requires_grad_()
    masked = [MASKED_TARGET] * 2
    truth = torch.tensor([[1.0, 0.0, 0.0, 1.0, *masked], [0.0, 1.0, *masked, 1.0, 0.0]])
    loss = head.loss(x, truth, (1, 1), 0)
    flat, one, groups = x.flatten(1), torch.tensor(1), ((0, 0, 0), (0, 2, 1), (1, 0, 1), (1, 4, 0))
    exact = torch.stack([F.cross_entropy(flat[n, at : at + 2], one * label) for n, at, label in groups]).sum()
    assert loss.cost == pytest.approx(exact.item())
    torch.testing.assert_close(torch.autograd.grad(loss.value, x)[0], torch.autograd.grad(exact, x)[0])


def test_gradients_pass_softmax_unchanged() -> None:
    head = build_head("[softmax]\n", 3, 1, 1)
    x = torch.randn(2, 3, 1, 1).requires_grad_()
    weights = torch.randn(2, 3, 1, 1)
    (gradient,) = torch.autograd.grad((head(x) * weights).sum(), x)
    torch.testing.assert_close(gradient, weights)


def test_softmax_without_loss_is_not_a_head() -> None:
    text = "[net]\nwidth=1\nheight=1\nchannels=4\n[softmax]\n{}[softmax]\n"
    assert [step.index for step in make_plan(parse(text.format("noloss=1\n"))).heads] == [1]
    assert [step.index for step in make_plan(parse(text.format(""))).heads] == [0, 1]


@pytest.mark.parametrize(
    ("text", "cost", "delta"),
    [
        ("type=sse\n", 0.25 + 9.0 + 1235.0**2, [0.5, -3.0, -1235.0]),
        ("type=masked\n", 0.25 + 9.0, [0.5, -3.0, 0.0]),
        ("type=smooth\n", 0.25 + 5.0 + 2469.0, [0.5, -1.0, -1.0]),
        ("type=masked\nscale=2\n", 0.25 + 9.0, [1.0, -6.0, 0.0]),
    ],
)
def test_cost(text: str, cost: float, delta: list[float]) -> None:
    head = build_head(f"[cost]\n{text}", 3, 1, 1)
    x = torch.tensor([0.5, 3.0, 1.0]).view(1, 3, 1, 1).requires_grad_()
    loss = head.loss(x, torch.tensor([[1.0, 0.0, -1234.0]]), (1, 1), 0)
    assert loss.cost == pytest.approx(cost)
    assert (-torch.autograd.grad(loss.value, x)[0]).flatten().tolist() == pytest.approx(delta)


def test_training_only_layers_pass_their_input_on() -> None:
    text = "[net]\nwidth=2\nheight=2\nchannels=3\n[cost]\n[contrastive]\nclasses=1\n"
    network = Network(make_plan(parse(text)))
    x = torch.randn(1, 3, 2, 2)
    assert all(torch.equal(output, x) for output in network(x))
    assert not any(output.any() for output in network.outputs(x, [0, 1]).values())


def test_contrastive_is_not_trained() -> None:
    head = build_head("[contrastive]\n", 3)
    with pytest.raises(InputError, match=r"training of \[contrastive\] is not supported"):
        head.loss(torch.zeros(1, 3, 3, 4), torch.zeros(1, 0, 5), (4, 3), 0)
