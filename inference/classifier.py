"""A classifier made ready on a device: images in, probabilities of classes out."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.detector import Runnable
from models.fit import classes_of


class Classifier:
    """Forward pass of a network without boxes, in evaluation mode.

    half: 16-bit floats; the network must have been converted. mirrored: the mean of each image and its mirror image.
    Raises InputError for a cfg without a head.
    """

    def __init__(self, network: Runnable, device: torch.device, *, half: bool = False, mirrored: bool = False) -> None:
        self.network, self.device, self.mirrored = network, device, mirrored
        self.dtype = torch.float16 if half else torch.float32
        self.classes = classes_of(network.plan)
        self.size_wh = (network.plan.input.width, network.plan.input.height)
        self.tree = next((tree for layer in network if (tree := getattr(layer, "tree", None)) is not None), None)

    def probabilities(self, images: Tensor) -> Tensor:
        """float32 (b, classes) on the CPU for images (b, channels, height, width).

        Of a tree of classes they are those from the top down (tree.c hierarchy_predictions).
        """
        images = images.to(self.device, self.dtype)
        views = (images, images.flip(3)) if self.mirrored else (images,)
        found = torch.stack([self.network(view)[-1].float().flatten(1) for view in views]).mean(0).cpu()
        return found if self.tree is None else self.tree.absolute(found)

    def leaf_probabilities(self, images: Tensor) -> Tensor:
        """The same with 0 for classes that have others below them: what a classifier is measured by."""
        found = self.probabilities(images)
        if self.tree is not None:
            found[:, [parent for parent in set(self.tree.parents) if parent >= 0]] = 0
        return found
