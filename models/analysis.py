"""What a network costs beside its operations: traffic and work of each layer, and the memory that its maps need.

The figures behind CSPNet's Figures 7 and 8 and VoVNet's section 2; numbers only, from a plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.network import last_reads
from models.plan import Plan

FLOAT_BYTES = 4


@dataclass(frozen=True)
class LayerLoad:
    """A layer that computes. operations: convolution and pooling; input, output: elements read and written."""

    index: int
    operations: float
    input: int
    output: int


def layer_loads(plan: Plan) -> tuple[LayerLoad, ...]:
    """The layers that CIO counts (convolutions and pooling), in order."""
    return tuple(
        LayerLoad(
            step.index,
            step.cost.operations - step.cost.elementwise,
            sum(shape.outputs for shape in step.site.inputs),
            step.shape.outputs,
        )
        for step in plan.steps
        if step.cost.io
    )


def peak_activation_bytes(plan: Plan, batch: int = 1) -> int:
    """Most bytes of maps held at one time in inference, single precision, each released after its last reader."""
    expires = last_reads(plan)
    held = {-1: plan.input.outputs}
    peak = 0
    for step in plan.steps:
        held[step.index] = step.shape.outputs
        peak = max(peak, sum(held.values()))
        for index in expires[step.index]:
            held.pop(index, None)
    return batch * FLOAT_BYTES * peak
