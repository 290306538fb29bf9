"""[crop]: a part of the image, brought to [-1, 1] (crop_layer.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.layers.base import Layer, LayerSection, Shape, Site
from models.onnx_graph import Graph
from utils.options import ignored, option

_GPU_ONLY = "acts in the original's GPU build only; images are altered where they are loaded"


@dataclass(frozen=True, kw_only=True)
class CropSection(LayerSection):
    names: ClassVar[tuple[str, ...]] = ("crop",)

    crop_height: int = option(1, "height of the part", least=1)
    crop_width: int = option(1, "width of the part", least=1)
    flip: bool = option(False, "in training half of the batches are mirrored")
    noadjust: bool = option(False, "values stay as they are instead of x * 2 - 1")
    angle: float = ignored(0.0, _GPU_ONLY)
    saturation: float = ignored(1.0, _GPU_ONLY)
    exposure: float = ignored(1.0, _GPU_ONLY)
    shift: float = ignored(0.0, _GPU_ONLY)

    def shape(self, site: Site) -> Shape:
        shape = site.input
        if self.crop_height > shape.height or self.crop_width > shape.width:
            raise site.error(
                f"a part of {self.crop_width}x{self.crop_height} does not fit the input {shape}", "crop_width"
            )
        return Shape(shape.channels, self.crop_height, self.crop_width)

    def build(self, site: Site) -> Crop:
        return Crop(self)


class Crop(Layer):
    """Input (n, c, h, w), output (n, c, crop_height, crop_width): the middle, in training a random place for each batch."""

    def __init__(self, section: CropSection) -> None:
        super().__init__()
        self.section = section

    def forward(self, x: Tensor) -> Tensor:
        section = self.section
        rows, columns = x.shape[2] - section.crop_height, x.shape[3] - section.crop_width
        top, left, flip = rows // 2, columns // 2, False
        if self.training:
            top, left = int(torch.randint(rows + 1, ())), int(torch.randint(columns + 1, ()))
            flip = section.flip and bool(torch.randint(2, ()))
        if flip:  # crop_layer.c forward_crop_layer counts the columns from the other side
            x = x.flip(3)
        y = x[:, :, top : top + section.crop_height, left : left + section.crop_width]
        return y if section.noadjust else y * 2 - 1

    def export(self, graph: Graph, site: Site, *inputs: str) -> str:
        section = self.section
        site.require_fixed_size(graph, "the middle of the image is cut out")
        y = inputs[0]
        for axis, whole, part in (
            (2, site.input.height, section.crop_height),
            (3, site.input.width, section.crop_width),
        ):
            start = (whole - part) // 2
            y = graph.slice(y, axis, start, start + part)
        return y if section.noadjust else graph.node("Sub", graph.node("Mul", y, 2.0), 1.0)
