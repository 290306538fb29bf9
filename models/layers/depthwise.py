"""[depthwise] and [depthwise_convolutional] of several forks: a convolution of each channel by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.layers.base import Site
from models.layers.convolutional import ConvolutionalSection
from utils.options import ignored, option


@dataclass(frozen=True, kw_only=True)
class DepthwiseSection(ConvolutionalSection):
    """The original spells it [convolutional] with as many groups as channels; `filters` is a multiple of them."""

    names: ClassVar[tuple[str, ...]] = ("depthwise", "depthwise_convolutional")

    filters: int = option(0, "output channels; default as many as the input has", least=0)
    groups: int = ignored(1, "each channel is a group of its own")

    def filters_at(self, site: Site) -> int:
        return self.filters or site.input.channels

    def groups_at(self, site: Site) -> int:
        return site.input.channels
