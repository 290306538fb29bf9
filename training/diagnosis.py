"""Explains a loss or gradient that is not finite: the first layer where it appears, and what to check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_MAX_FILES = 8


@dataclass(frozen=True)
class Context:
    """What was being computed.

    iteration: counted from 1.
    rate: learning rate.
    targets, files: ground truth and image files of the batches.
    """

    iteration: int
    rate: float
    targets: Sequence[Tensor]
    files: Sequence[str]


Layers = Sequence[tuple[str, nn.Module]]


def explain_loss(layers: Layers, forward: Callable[[], object], context: Context) -> str:
    """Message for a loss that is not finite. `forward` is called to compute it again and find the layer."""
    weights = next((name for name, layer in layers if _not_finite(layer.parameters())), None)
    place = f"the weights of layer {weights}" if weights else _first_output(layers, forward)
    return _message("loss", place, context)


def explain_gradients(layers: Layers, context: Context) -> str:
    """Message for a gradient that is not finite. It arose in the last affected layer, since gradients flow backwards."""
    wrong = [name for name, layer in layers if _not_finite(w.grad for w in layer.parameters())]
    return _message("gradient", f"layer {wrong[-1]}" if wrong else "no single layer", context)


def _not_finite(tensors: Iterable[Tensor | None]) -> bool:
    return any(tensor is not None and not bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _first_output(layers: Layers, forward: Callable[[], object]) -> str:
    found: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def check(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and _not_finite([output]):
                found.append(name)

        return check

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers]
    with torch.no_grad():
        forward()
    for handle in handles:
        handle.remove()
    return f"the output of layer {found[0]}" if found else "the loss itself, all layers are finite"


def _message(what: str, place: str, context: Context) -> str:
    text = (
        f"the {what} is not finite: iteration {context.iteration}, learning rate {context.rate:.3g}, first in {place}\n"
    )
    text += _hint(context.targets)
    files = context.files
    if files:
        more = len(files) - _MAX_FILES
        text += f"\nimages of the batch: {', '.join(files[:_MAX_FILES])}" + (f" and {more} more" if more > 0 else "")
    return text


def _hint(targets: Sequence[Tensor]) -> str:
    boxes = [each for each in targets if each.dim() == 3]
    empty = sum(int(((each[..., 0] != 0) & (each[..., 2:4] <= 0).any(-1)).sum()) for each in boxes)
    wrong = sum(int((~torch.isfinite(each)).any(-1).sum()) for each in boxes)
    if empty or wrong:
        return f"{empty} boxes of the batch have no size and {wrong} are not numbers: check the labels"
    return "try a lower learning_rate, a longer burn_in, or max_delta in [yolo], which limits single gradients"
