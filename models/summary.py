"""The original's layer table, with totals, as text and as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.catalog import BY_NAME
from models.layers.base import Step
from models.network import last_reads
from models.plan import NET_NAMES, Plan
from utils.cfg import Cfg, Entry
from utils.net_options import NET_AUDIENCES
from utils.options import key_of, report_keys

FLOAT_BYTES = 4


@dataclass(frozen=True)
class LayerLoad:
    """A convolution or pooling layer: operations per image, elements read (input) and written (output)."""

    operations: float
    input: int
    output: int


def layer_loads(plan: Plan) -> tuple[LayerLoad, ...]:
    """The layers that CIO counts (convolution and pooling), in order."""
    return tuple(
        LayerLoad(
            step.cost.operations - step.cost.elementwise,
            sum(shape.outputs for shape in step.site.inputs),
            step.shape.outputs,
        )
        for step in plan.steps
        if step.cost.io
    )


def peak_activation_bytes(plan: Plan) -> int:
    """Peak memory of the activations of one image at inference, in float32, each released after its last reader."""
    expires = last_reads(plan)
    held = {-1: plan.input.outputs}
    peak = 0
    for step in plan.steps:
        held[step.index] = step.shape.outputs
        peak = max(peak, sum(held.values()))
        for index in expires[step.index]:
            held.pop(index, None)
    return FLOAT_BYTES * peak


HEADER_BYTES = 20  # header size of the .weights files that the original writes


def layer_facts(step: Step) -> dict[str, Any]:
    """One layer as plain data; `bflops` follows the original's rule, `params` counts floats in the weights file."""
    cost = step.cost
    return {
        "index": step.index,
        "type": step.section.names[0],
        "line": step.raw.line,
        "in": [list(shape.hwc) for shape in step.site.inputs],
        "out": list(step.reported_shape.hwc),
        "sources": list(step.sources),
        "detail": step.section.detail(step.site),
        "bflops": cost.operations / 1e9,
        "params": cost.parameters,
        "mac": cost.memory_access,
        "cio": cost.io,
    }


def totals(plan: Plan) -> dict[str, Any]:
    """Sums over a plan.

    bflops: the original's rule, summed in double precision.
    bflops_printed: as the original prints it, a running sum in single precision.
    bflops_paper: convolution and pooling only, as in CSPNet's tables.
    params: floats in the weights file.
    conv_weights: the part of `params` that are weights.
    mac, mac_bound: memory access cost, and its lower bound for the same number of operations (VoVNet eq. 1).
    cio: inputs plus outputs of convolution and pooling layers (CSPNet section 4.5).
    """
    costs = [step.cost for step in plan.steps]
    printed = np.float32(0)
    for cost in costs:
        printed += np.float32(cost.operations / 1e9)
    return {
        "layers": len(plan.steps),
        "bflops": sum(cost.operations for cost in costs) / 1e9,
        "bflops_printed": float(printed),
        "bflops_paper": sum(cost.operations - cost.elementwise for cost in costs) / 1e9,
        "params": plan.parameters,
        "conv_weights": sum(cost.weights for cost in costs),
        "weights_bytes": HEADER_BYTES + 4 * plan.parameters,
        "mac": sum(cost.memory_access for cost in costs),
        "mac_bound": sum(cost.memory_access_bound for cost in costs),
        "cio": sum(cost.io for cost in costs),
    }


def key_report(cfg: Cfg) -> dict[str, list[dict[str, Any]]]:
    """Keys that are unknown, ignored (with the reason) or repeated, each with its line, and the number of keys understood."""
    report: dict[str, list[dict[str, Any]]] = {"ignored": [], "unknown": [], "repeated": []}
    understood = 0
    for raw in cfg.sections:
        audiences = NET_AUDIENCES if raw.name in NET_NAMES else (BY_NAME[raw.name],)
        reasons = {key_of(item): item.metadata.get("ignored") for a in audiences for item in a.keys().values()}
        found = report_keys(raw, audiences)
        understood += len(found["understood"])
        for kind, listed in report.items():
            listed.extend(_entry_facts(raw.name, entry, reasons.get(entry.key)) for entry in found[kind])
    return {"understood": [{"count": understood}], **report}


def _entry_facts(section: str, entry: Entry, reason: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"section": section, "key": entry.key, "value": entry.value, "line": entry.line}
    return {**facts, "reason": reason} if reason else facts


def layer_table(plan: Plan) -> str:
    """One line per layer: index, type, detail, input -> output, BFLOPs, parameters, memory access cost, CIO."""
    details = [step.section.detail(step.site) for step in plan.steps]
    width = max(len("detail"), *map(len, details))
    head = (
        f"{'layer':>5} {'type':14} {'detail':{width}} {'input':>17}    {'output':>17} {'BFLOPs':>9} {'parameters':>12} {'MAC':>12} "
        f"{'CIO':>12}"
    )
    lines = [head]
    for step, detail in zip(plan.steps, details, strict=True):
        cost = step.cost
        size_in = _wide(step.site.input.hwc)
        size_out = _wide(step.reported_shape.hwc if any(step.reported_shape.hwc) else step.shape.hwc)
        bflops = f"{cost.operations / 1e9:9.3f}" if cost.operations else " " * 9
        counts = [cost.parameters, round(cost.memory_access), round(cost.io)]
        columns = " ".join(f"{count:12,}" if count else " " * 12 for count in counts)
        name = step.section.names[0]
        lines.append(f"{step.index:5} {name:14} {detail:{width}} {size_in} -> {size_out} {bflops} {columns}".rstrip())
    return "\n".join(lines)


def _wide(hwc: tuple[int, int, int]) -> str:
    height, width, channels = hwc
    return f"{width:4} x{height:4} x{channels:5}"


def total_lines(plan: Plan) -> str:
    """The totals as lines of text."""
    sums = totals(plan)
    paper = f"{sums['bflops_paper']:.3f} as the papers count: convolutions and pooling"
    weights = f"{sums['conv_weights']:,} of them weights"
    bound = f"at least {sums['mac_bound'] / 1e6:.1f} M"
    return "\n".join(
        (
            f"Total BFLOPS {sums['bflops_printed']:5.3f} ({paper})",
            f"parameters {sums['params']:,} ({weights}), weights file {sums['weights_bytes']:,} bytes",
            f"memory access cost {sums['mac'] / 1e6:.1f} M ({bound}), CIO {sums['cio'] / 1e6:.1f} M",
        )
    )
