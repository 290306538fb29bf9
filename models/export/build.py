"""Builds the ONNX graph of a network: every layer adds its nodes, followed by box decoding and NMS on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.export.int8 import Quantizable, Quantization, quantize
from models.heads.base import Head
from models.network import Network
from models.onnx_graph import INPUT, Graph, Node
from utils.errors import InputError

Outputs = Literal["raw", "boxes", "nms"]
OUTPUTS: tuple[Outputs, ...] = ("raw", "boxes", "nms")
OPSETS = (13, 21)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export.

    outputs: "raw": the network's outputs, one per head; "boxes": `boxes` (n, boxes, 4), centre and size relative to the
        input, and `scores` (n, boxes, classes); "nms": `detections` (any, 7) after NMS: image, class, score, box.
    opset: ONNX operator set version.
    batch: batch size; None: any.
    dynamic_size: accept any width and height that the strides divide.
    half: weights and layers in float16; input, heads and outputs stay in float32.
    int8: compute convolutions in 8 bits.
    conf, iou, max_det: NMS settings; max_det applies per class.
    """

    outputs: Outputs = "boxes"
    opset: int = 17
    batch: int | None = 1
    dynamic_size: bool = False
    half: bool = False
    int8: Quantization | None = None
    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300


@dataclass(frozen=True)
class Built:
    """An ONNX graph and the names of its outputs."""

    graph: Graph
    outputs: tuple[str, ...]


def build_graph(network: Network, options: ExportOptions) -> Built:
    """Build the graph of a network. Raises InputError for anything that ONNX cannot express."""
    plan = network.plan
    low, high = OPSETS
    if not low <= options.opset <= high:
        raise InputError(f"opset {options.opset}: expected {low} to {high}")
    size_wh, dynamic = plan.input.size_wh, options.dynamic_size
    graph = Graph(opset=options.opset, batch=options.batch, dynamic_size=dynamic, size_wh=size_wh)
    values = _layers(network, graph, options.half)
    if options.outputs == "raw":
        names = [f"output_{step.index}" for step in plan.heads]
        return _finish(graph, [values[step.index] for step in plan.heads], names, options.int8)
    boxes, scores = _boxes(network, graph, values)
    if options.outputs == "boxes":
        return _finish(graph, [boxes, scores], ["boxes", "scores"], options.int8)
    return _finish(graph, [_suppressed(graph, boxes, scores, options)], ["detections"], options.int8)


def observable(network: Network, options: ExportOptions) -> Built:
    """The float graph whose outputs are the tensors that `Quantization.ranges` must cover, except the input."""
    built = build_graph(network, replace(options, outputs="raw", half=False, int8=None))
    return Built(built.graph, Quantizable.of(built.graph, built.outputs).observed)


def _layers(network: Network, graph: Graph, half: bool) -> dict[int, str]:
    """Add all layers; returns their output names by index. Heads compute in float32, as in the network."""
    values = {-1: INPUT}
    for step, layer in zip(network.plan.steps, network, strict=True):
        with graph.scope(f"layer_{step.index}/", np.float16 if half and not isinstance(layer, Head) else np.float32):
            inputs = [graph.cast(values[source]) for source in step.sources]
            values[step.index] = layer.export(graph, step.site, *inputs)
    return values


def _boxes(network: Network, graph: Graph, values: dict[int, str]) -> tuple[str, str]:
    boxes, scores = [], []
    for step in network.plan.box_heads:
        with graph.scope(f"boxes_{step.index}/", np.float32):
            head_boxes, head_scores = network.head(step).export_boxes(graph, step.site, values[step.index])
        boxes.append(head_boxes)
        scores.append(head_scores)
    if not boxes:
        raise InputError(f"{network.plan.cfg.path}: has no layer with boxes, expected --output raw")
    return graph.concat(boxes, 1), graph.concat(scores, 1)


def dense_boxes(network: Network, outputs: Sequence[Tensor], size_wh: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (n, boxes, 4) and scores (n, boxes, classes) as the exported model returns them, from `network(images)`."""
    with_boxes = {step.index for step in network.plan.box_heads}
    found = []
    for step, output in zip(network.plan.heads, outputs, strict=True):
        if step.index in with_boxes:
            found.append(network.head(step).dense(output, size_wh))
    return torch.cat([each.cxcywh_rel for each in found], 1), torch.cat([each.scores for each in found], 1)


def _suppressed(graph: Graph, boxes: str, scores: str, options: ExportOptions) -> str:
    with graph.scope("nms/", np.float32):
        by_class = graph.node("Transpose", scores, perm=[0, 2, 1])
        limits = (graph.integers([options.max_det]), graph.constant([options.iou]), graph.constant([options.conf]))
        chosen = graph.node("NonMaxSuppression", boxes, by_class, *limits, center_point_box=1)
        place = graph.concat([graph.slice(chosen, 1, 0, 1), graph.slice(chosen, 1, 2, 3)], 1)
        score = graph.node("Unsqueeze", graph.node("GatherND", by_class, chosen), graph.integers([1]))
        first = graph.to_float(graph.slice(chosen, 1, 0, 2))
        return graph.concat([first, score, graph.node("GatherND", boxes, place)], 1)


def _finish(graph: Graph, values: list[str], names: list[str], int8: Quantization | None) -> Built:
    """Name the outputs, drop nodes that no output depends on, and quantise if requested."""
    for value, name in zip(values, names, strict=True):
        with graph.scope("", np.float32):
            source = graph.cast(value)
        graph.nodes.append(Node("Identity", name, (source,), (name,), {}))
    graph.nodes = _needed(graph.nodes, names)
    graph.nodes = _without_identities(graph.nodes, names)
    if int8 is not None:
        quantize(graph, tuple(names), int8)
    used = {name for node in graph.nodes for name in node.inputs}
    graph.constants = {name: value for name, value in graph.constants.items() if name in used}
    return Built(graph, tuple(names))


def _needed(nodes: list[Node], names: list[str]) -> list[Node]:
    wanted, kept = set(names), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _without_identities(nodes: list[Node], names: list[str]) -> list[Node]:
    """Replace an Identity before an output by renaming the node that feeds it."""
    readers: dict[str, int] = {}
    for node in nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    makers = {output for node in nodes for output in node.outputs}
    renamed: dict[str, str] = {}
    for node in nodes:
        if node.op == "Identity" and node.outputs[0] in names:
            (source,) = node.inputs
            if readers[source] == 1 and source in makers:
                renamed[source] = node.outputs[0]
    kept = [node for node in nodes if not (node.op == "Identity" and node.inputs[0] in renamed)]
    return [replace(node, outputs=tuple(renamed.get(name, name) for name in node.outputs)) for node in kept]
