"""All layer types. This tuple is the whole list: one screen shows the format."""

from __future__ import annotations

from models.layers.activation import ActivationSection
from models.layers.attention import SamSection, ScaleChannelsSection
from models.layers.base import LayerSection
from models.layers.batchnorm import BatchnormSection
from models.layers.connected import ConnectedSection
from models.layers.convolutional import ConvolutionalSection
from models.layers.crop import CropSection
from models.layers.dropout import DropoutSection
from models.layers.empty import EmptySection
from models.layers.implicit import (
    ControlChannelsSection,
    ImplicitAddSection,
    ImplicitMulSection,
    ImplicitSection,
    ShiftChannelsSection,
)
from models.layers.local import LocalSection
from models.layers.normalization import NormalizationSection
from models.layers.pooling import AvgpoolSection, LocalAvgpoolSection, MaxpoolSection
from models.layers.reorg import Reorg3dSection, ReorgSection
from models.layers.route import RouteLeftHalfSection, RouteSection
from models.layers.shortcut import ShortcutSection
from models.layers.upsample import UpsampleSection

SECTIONS: tuple[type[LayerSection], ...] = (
    ConvolutionalSection,
    LocalSection,
    ConnectedSection,
    MaxpoolSection,
    LocalAvgpoolSection,
    AvgpoolSection,
    ReorgSection,
    Reorg3dSection,
    UpsampleSection,
    RouteSection,
    RouteLeftHalfSection,
    ShortcutSection,
    ScaleChannelsSection,
    SamSection,
    BatchnormSection,
    NormalizationSection,
    ActivationSection,
    DropoutSection,
    CropSection,
    ImplicitSection,
    ImplicitAddSection,
    ImplicitMulSection,
    ShiftChannelsSection,
    ControlChannelsSection,
    EmptySection,
)

BY_NAME: dict[str, type[LayerSection]] = {name: section for section in SECTIONS for name in section.names}
