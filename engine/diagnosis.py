"""Why a loss or a gradient is not finite: the first layer in which it shows, and what to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_FILES_SHOWN = 8


class Batch(Protocol):
    @property
    def truth(self) -> Tensor: ...
    @property
    def files(self) -> Sequence[str]: ...


Layers = Sequence[tuple[str, nn.Module]]


def explain_loss(layers: Layers, forward: Callable[[], object], batch: Batch, iteration: int, rate: float) -> str:
    """Message for a loss that is not finite. `forward` computes it once more, to see where it begins."""
    weights = next((name for name, layer in layers if _any_wrong(layer.parameters())), None)
    place = f"the weights of layer {weights}" if weights else _first_output(layers, forward)
    return _message("loss", place, [batch], iteration, rate)


def explain_gradients(layers: Layers, batches: Sequence[Batch], iteration: int, rate: float) -> str:
    """Message for a gradient that is not finite. Gradients run from the last layer to the first: it began in the last one."""
    wrong = [name for name, layer in layers if _any_wrong(w.grad for w in layer.parameters())]
    return _message("gradient", f"layer {wrong[-1]}" if wrong else "no layer alone", batches, iteration, rate)


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


def _message(what: str, place: str, batches: Sequence[Batch], iteration: int, rate: float) -> str:
    files = [file for batch in batches for file in batch.files]
    shown = ", ".join(files[:_FILES_SHOWN]) + (
        f" and {len(files) - _FILES_SHOWN} more" if len(files) > _FILES_SHOWN else ""
    )
    lines = [
        f"the {what} is not finite: iteration {iteration}, learning rate {rate:.3g}, first in {place}",
        f"the last checkpoint is kept; {_hint(batches)}",
    ]
    return "\n".join([*lines, f"pictures of the batch: {shown}"] if files else lines)


def _hint(batches: Sequence[Batch]) -> str:
    boxes = [batch.truth for batch in batches if batch.truth.dim() == 3]
    empty = sum(int(((truth[..., 0] != 0) & (truth[..., 2:4] <= 0).any(-1)).sum()) for truth in boxes)
    wrong = sum(int((~torch.isfinite(truth)).any(-1).sum()) for truth in boxes)
    if empty or wrong:
        return f"{empty} boxes of the batch have no size and {wrong} are not numbers: look at the labels"
    return (
        "a lower learning_rate or a longer burn_in usually helps, or max_delta in [yolo], which bounds single gradients"
    )
