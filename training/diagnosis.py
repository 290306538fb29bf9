"""Why a loss or a gradient is not finite: the first layer in which it shows, and what to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_FILES_SHOWN = 8


@dataclass(frozen=True)
class Facts:
    """Where a run was: iteration (from 1), learning rate, truths of the batches, and the images they were made of."""

    iteration: int
    rate: float
    truths: Sequence[Tensor]
    files: Sequence[str]


Layers = Sequence[tuple[str, nn.Module]]


def explain_loss(layers: Layers, forward: Callable[[], object], facts: Facts) -> str:
    """Message for a loss that is not finite. `forward` computes it once more, to see where it begins."""
    weights = next((name for name, layer in layers if _any_wrong(layer.parameters())), None)
    place = f"the weights of layer {weights}" if weights else _first_output(layers, forward)
    return _message("loss", place, facts)


def explain_gradients(layers: Layers, facts: Facts) -> str:
    """Message for a gradient that is not finite. Gradients run from the last layer to the first: it began in the last one."""
    wrong = [name for name, layer in layers if _any_wrong(w.grad for w in layer.parameters())]
    return _message("gradient", f"layer {wrong[-1]}" if wrong else "no layer alone", facts)


def _any_wrong(tensors: Iterable[Tensor | None]) -> bool:
    return any(tensor is not None and not bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _first_output(layers: Layers, forward: Callable[[], object]) -> str:
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and _any_wrong([output]):
                found.append(name)

        return look

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers]
    with torch.no_grad():
        forward()
    for handle in handles:
        handle.remove()
    return f"the output of layer {found[0]}" if found else "the loss itself, all layers are finite"


def _message(what: str, place: str, facts: Facts) -> str:
    files = facts.files
    shown = ", ".join(files[:_FILES_SHOWN]) + (
        f" and {len(files) - _FILES_SHOWN} more" if len(files) > _FILES_SHOWN else ""
    )
    lines = [
        f"the {what} is not finite: iteration {facts.iteration}, learning rate {facts.rate:.3g}, first in {place}",
        f"the last checkpoint is kept; {_hint(facts.truths)}",
    ]
    return "\n".join([*lines, f"images of the batch: {shown}"] if files else lines)


def _hint(truths: Sequence[Tensor]) -> str:
    boxes = [truth for truth in truths if truth.dim() == 3]
    empty = sum(int(((truth[..., 0] != 0) & (truth[..., 2:4] <= 0).any(-1)).sum()) for truth in boxes)
    wrong = sum(int((~torch.isfinite(truth)).any(-1).sum()) for truth in boxes)
    if empty or wrong:
        return f"{empty} boxes of the batch have no size and {wrong} are not numbers: look at the labels"
    return (
        "a lower learning_rate or a longer burn_in usually helps, or max_delta in [yolo], which bounds single gradients"
    )
