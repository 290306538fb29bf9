"""Where a picture lies in the network's input, and the way back for boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a picture fills the network's input: stretched over all of it, or letterboxed into its middle.

    picture_wh, network_wh: width and height in pixels, all positive. letter_box: keep the aspect ratio (the cfg's
    letter_box=1). Boxes are cxcywh_rel: centre and size in parts of the width and height of the frame they lie in.
    """

    picture_wh: tuple[int, int]
    network_wh: tuple[int, int]
    letter_box: bool = False

    @property
    def inner_wh(self) -> tuple[int, int]:
        """Size of the resized picture inside the network's input: letterbox_image in src/image.c, whole numbers.

        At least 1: the original makes an empty picture out of one more than `network` times as long as wide.
        """
        (width, height), (net_w, net_h) = self.picture_wh, self.network_wh
        if not self.letter_box:
            return self.network_wh
        if np.float32(net_w) / np.float32(width) < np.float32(net_h) / np.float32(height):
            return net_w, max(height * net_w // width, 1)
        return max(width * net_h // height, 1), net_h

    @property
    def offset_wh(self) -> tuple[int, int]:
        """Left and top pixel of the resized picture inside the network's input."""
        (net_w, net_h), (inner_w, inner_h) = self.network_wh, self.inner_wh
        return (net_w - inner_w) // 2, (net_h - inner_h) // 2

    def to_picture_rel(self, cxcywh_rel: Tensor) -> Tensor:
        """Boxes (..., 4) of the network's input as boxes (..., 4) of the picture, both relative, not clipped.

        Source: correct_yolo_boxes. It takes half of an odd border as x.5 pixels where letterbox_image rounds down;
        so does this.
        """
        ratio, shift = self._ratio_and_shift(cxcywh_rel)
        return torch.cat(((cxcywh_rel[..., :2] - shift) / ratio, cxcywh_rel[..., 2:] / ratio), -1)

    def to_network_rel(self, cxcywh_rel: Tensor) -> Tensor:
        """The inverse of `to_picture_rel`: boxes of the picture as boxes of the network's input."""
        ratio, shift = self._ratio_and_shift(cxcywh_rel)
        return torch.cat((cxcywh_rel[..., :2] * ratio + shift, cxcywh_rel[..., 2:] * ratio), -1)

    def to_picture(self, cxcywh_rel: Tensor) -> Tensor:
        """Boxes (..., 4) of the network's input as left, top, right, bottom in pixels of the picture, not clipped."""
        return cxcywh_to_xyxy(self.to_picture_rel(cxcywh_rel)) * cxcywh_rel.new_tensor(self.picture_wh).repeat(2)

    def to_network(self, xyxy_px: Tensor) -> Tensor:
        """The inverse of `to_picture`: pixels of the picture to cxcywh_rel of the network's input."""
        relative = xyxy_px / xyxy_px.new_tensor(self.picture_wh).repeat(2)
        return self.to_network_rel(xyxy_to_cxcywh(relative))

    def _ratio_and_shift(self, like: Tensor) -> tuple[Tensor, Tensor]:
        network, inner = like.new_tensor(self.network_wh), like.new_tensor(self.inner_wh)
        return inner / network, (network - inner) / 2 / network
