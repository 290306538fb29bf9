"""Show what a cfg describes: layer table, shapes, parameters, BFLOPs, memory access, and a report of its keys.

examples:
  python info.py --cfg cfg/yolov3-tiny.cfg
  python info.py --cfg cfg/*.cfg --json models.json
  python info.py --cfg cfg/resnext50.cfg cfg/csresnext50.cfg --plot layers.png
  python info.py --cfg cfg/vovnet39.cfg --weights vovnet39.weights --weight-norms norms.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from models.formats.files import LoadOptions, load_model
from models.network import Network
from models.plan import Plan, read_plan
from models.summary import key_report, layer_facts, layer_table, peak_activation_bytes, total_lines, totals
from profiling.energy import energy_counter, measure_energy
from profiling.plots import plot_layers
from profiling.timing import forward_pass, settle_statistics, time_forward
from profiling.weight_norms import plot_weight_norms, weight_norms, weight_norms_text
from utils.cli import EXIT_BAD_INPUT, EXIT_OK, flags_of, input_size, options_from, run_script, script_parser
from utils.device import select_device
from utils.errors import InputError
from utils.files import write_text

MEASURED_RUNS = 10


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """The flags of info.py."""

    cfg: tuple[str, ...]
    img_size: tuple[int, ...]
    json: str | None
    plot: str | None
    weights: str | None
    weight_norms: str | None
    device: str


def parse_arguments(arguments: Sequence[str] | None) -> InfoOptions:
    parser = script_parser("info.py", __doc__)
    add = flags_of(parser)
    add("--cfg", nargs="+", required=True, help="Darknet cfg files")
    add("--img-size")
    add("--json", metavar="OUT", help="also write everything as a JSON list with one object per file")
    text = "draw the cost and memory access of each layer as a PNG; print memory access and measured speed and energy"
    add("--plot", metavar="OUT", help=text)
    text = (
        "print the mean absolute weights of each convolution of one cfg by source layer; OUT: also draw them as a PNG"
    )
    add("--weight-norms", nargs="?", const="", metavar="OUT", help=text)
    text = "weights for --weight-norms: .weights, .pt, .safetensors or the name of a shipped model; default: random"
    add("--weights", help=text)
    add("--device", help="device on which --plot measures: cpu, mps, or a CUDA index; default: a GPU if there is one")
    return options_from(InfoOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    width, height = input_size(options.img_size) or (None, None)
    if options.weight_norms is not None and len(options.cfg) > 1:
        raise InputError("--weight-norms: expected one cfg")
    if options.weights and options.weight_norms is None:
        raise InputError("--weights: has an effect only with --weight-norms")
    results: list[dict[str, Any]] = []
    plans = []
    for path in options.cfg:
        try:
            plan = read_plan(path, width=width, height=height)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            results.append({"cfg": path, "error": str(error), "layers": [], "total": {}})
            continue
        results.append(describe(path, plan))
        plans.append(plan)
        print(one_line(path, plan) if len(options.cfg) > 1 else full_text(plan))
    if options.plot and plans:
        device = select_device(options.device)
        for plan in plans:
            print(efficiency_text(plan, device))
        plot_layers(options.plot, plans)
        print(f"{options.plot}: cost and memory access of each layer")
    if options.weight_norms is not None and plans:
        norms = weight_norms(load_model(options.weights, LoadOptions(cfg=options.cfg[0])).network)
        results[0]["weight_norms"] = [each.to_json() for each in norms]
        print(weight_norms_text(norms))
        if options.weight_norms:
            plot_weight_norms(options.weight_norms, norms)
            print(f"{options.weight_norms}: weights of each convolution by source layer")
    failed = sum(result["error"] is not None for result in results)
    if len(results) > 1:
        print(f"{len(results) - failed} of {len(results)} files could be read")
    if options.json:
        write_text(options.json, json.dumps(results, indent=1) + "\n")
    return EXIT_BAD_INPUT if failed else EXIT_OK


def describe(path: str, plan: Plan) -> dict[str, Any]:
    """Return everything about one cfg as plain data."""
    layers = [layer_facts(step) for step in plan.steps]
    keys = key_report(plan.cfg)
    return {"cfg": path, "error": None, "layers": layers, "total": totals(plan), "keys": keys}


def one_line(path: str, plan: Plan) -> str:
    sums = totals(plan)
    return (
        f"{path}: {sums['layers']} layers, input {plan.input}, {sums['params'] / 1e6:.3f} M parameters, "
        f"{sums['bflops']:.3f} BFLOPs, MAC {sums['mac'] / 1e6:.1f} M, CIO {sums['cio'] / 1e6:.1f} M"
    )


def full_text(plan: Plan) -> str:
    parts = [layer_table(plan), total_lines(plan)]
    report = key_report(plan.cfg)
    parts.append(f"keys understood: {report['understood'][0]['count']}")
    for kind in ("ignored", "unknown", "repeated"):
        for item in report[kind]:
            reason = f": {item['reason']}" if "reason" in item else ""
            parts.append(
                f"{kind}: {plan.cfg.path}:{item['line']}: [{item['section']}] {item['key']}={item['value']}{reason}"
            )
    return "\n".join(parts)


def efficiency_text(plan: Plan, device: torch.device) -> str:
    """Return memory access, peak memory, and speed and energy measured on `device`, following VoVNet section 2."""
    sums, counter = totals(plan), energy_counter(device)
    shape = plan.input
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    network = settle_statistics(Network(plan)).fold().to(device)
    images = torch.rand(1, shape.channels, shape.height, shape.width, device=device)
    seconds = time_forward(network, images, MEASURED_RUNS)
    energy = "energy: no readable counter on this machine"
    if counter:
        use = measure_energy(counter, forward_pass(network, images))
        energy = (
            f"energy {use.joules:.3f} J an image above idle ({counter.name} over {use.passes} passes: {use.busy_watts:.1f} W, "
            f"{use.idle_watts:.1f} W idle)"
        )
    return "\n".join(
        (
            f"{plan.cfg.path} on {device}, random weights",
            f"  parameters {sums['params'] / 1e6:.3f} M, CIO {sums['cio'] / 1e6:.2f} M",
            f"  MAC {sums['mac'] / 1e6:.2f} M, at least {sums['mac_bound'] / 1e6:.2f} M for as many operations",
            f"  peak activation memory {peak_activation_bytes(plan) / 1e6:.1f} MB",
            *gpu_memory(device),
            f"  {seconds * 1e3:.2f} ms an image, {sums['bflops_paper'] / seconds:.1f} GFLOP/s",
            f"  {energy}",
        )
    )


def gpu_memory(device: torch.device) -> list[str]:
    """Return a line about peak GPU memory since its statistics were reset; none for other devices."""
    if device.type != "cuda":
        return []
    tensors, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return [
        f"  GPU memory {tensors / 1e6:.1f} MB in tensors, {reserved / 1e6:.1f} MB reserved, without CUDA's own context"
    ]


if __name__ == "__main__":
    sys.exit(run_script(main))
