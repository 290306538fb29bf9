"""All layer types, in one explicit list."""

from __future__ import annotations

from models.heads.cost import ContrastiveSection, CostSection
from models.heads.detection import DetectionSection
from models.heads.gaussian_yolo import GaussianYoloSection
from models.heads.region import RegionSection
from models.heads.softmax import SoftmaxSection
from models.heads.yolo import YoloSection
from models.layers.activation import ActivationSection, EmptySection
from models.layers.attention import SamSection, ScaleChannelsSection, SeSection
from models.layers.base import LayerSection
from models.layers.connected import ConnectedSection
from models.layers.conv_recurrent import ConvLstmSection, CrnnSection, HistorySection
from models.layers.convolutional import ConvolutionalSection, DepthwiseSection
from models.layers.dropout import DropoutSection
from models.layers.implicit import (
    ControlChannelsSection,
    ImplicitAddSection,
    ImplicitMulSection,
    ImplicitSection,
    ShiftChannelsSection,
)
from models.layers.local import LocalSection
from models.layers.normalization import BatchnormSection, NormalizationSection
from models.layers.pooling import AvgpoolSection, LocalAvgpoolSection, MaxpoolSection
from models.layers.recurrent import GruSection, LstmSection, RnnSection
from models.layers.route import RouteLeftHalfSection, RouteSection
from models.layers.shortcut import ShortcutSection
from models.layers.spatial import CropSection, Reorg3dSection, ReorgSection, UpsampleSection

SECTIONS: tuple[type[LayerSection], ...] = (
    ConvolutionalSection,
    DepthwiseSection,
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
    SeSection,
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
    RnnSection,
    GruSection,
    LstmSection,
    CrnnSection,
    ConvLstmSection,
    HistorySection,
    YoloSection,
    GaussianYoloSection,
    RegionSection,
    DetectionSection,
    SoftmaxSection,
    CostSection,
    ContrastiveSection,
)

BY_NAME: dict[str, type[LayerSection]] = {name: section for section in SECTIONS for name in section.names}
