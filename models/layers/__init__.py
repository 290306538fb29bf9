"""All layer types. This tuple is the whole list: one screen shows the format."""

from __future__ import annotations

from models.layers.base import LayerSection
from models.layers.convolutional import ConvolutionalSection

SECTIONS: tuple[type[LayerSection], ...] = (ConvolutionalSection,)

BY_NAME: dict[str, type[LayerSection]] = {name: section for section in SECTIONS for name in section.names}
