"""TorchScript models: the network traced by PyTorch, with its metadata."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.export.build import ExportOptions, dense_boxes
from models.export.metadata import Metadata
from models.network import Network
from utils.documents import parse_json
from utils.errors import InputError
from utils.files import atomic_write, is_file
from utils.torch_files import DAMAGE, check_archive

_FILE = "metadata.json"


class _Boxes(nn.Module):
    """The network followed by box decoding: boxes (n, boxes, 4) and scores (n, boxes, classes)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return dense_boxes(self.network, self.network(images), (images.shape[3], images.shape[2]))


def save_torchscript(network: Network, path: str | Path, options: ExportOptions, names: tuple[str, ...] = ()) -> None:
    """Write a traced network of fixed batch and input size.

    Raises InputError for options that a trace does not support, RunError if writing fails.
    """
    if options.dynamic_size or options.batch is None or options.outputs == "nms" or options.half:
        raise InputError("torchscript: has a fixed batch and size, float32, and --output raw or boxes")
    boxes = options.outputs == "boxes"
    if boxes and not network.plan.box_heads:
        raise InputError(f"{network.plan.cfg.path}: has no layer with boxes, expected --output raw")
    shape = network.plan.input
    images = torch.zeros(options.batch, shape.channels, shape.height, shape.width)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes become constants of the trace by design
        traced = torch.jit.trace(_Boxes(network) if boxes else network, images, check_trace=False)
    buffer = io.BytesIO()
    text = json.dumps(Metadata.of(network, options, names).pairs())
    torch.jit.save(traced, buffer, _extra_files={_FILE: text})
    with atomic_write(path) as stream:
        stream.write(buffer.getbuffer())


def read_torchscript(path: str | Path, device: torch.device) -> tuple[Any, dict[str, str]]:
    """Load a model onto a device; returns it with its metadata. Raises InputError for a file that is not TorchScript."""
    extra = {_FILE: ""}
    if not is_file(path):
        raise InputError(f"{path}: no such model")
    check_archive(path, "model")
    try:
        model = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    except DAMAGE as error:
        raise InputError(f"{path}: is not TorchScript: {str(error).split(chr(10), 1)[0]}") from None
    pairs = parse_json(extra[_FILE] or "{}", str(path), _FILE)
    return model.eval(), pairs if isinstance(pairs, dict) else {}
