"""A network made ready for detection on a device: images in, detections out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.detector import Detector, Runnable, Selection
from models.heads.base import Candidates
from utils.detections import Detections
from utils.errors import InputError
from utils.letterbox import KERNELS, Letterbox, network_input, to_gray

Outputs = tuple[tuple[Tensor, ...], ...]


class Predictor:
    """Forward pass and boxes of a network in evaluation mode, as two steps that can be timed one by one.

    half: 16-bit floats; the network must have been converted. mirrored: look at the mirror image of each image too.
    single: call every detection class 0; the selection ought to be agnostic then.
    Raises InputError for a cfg without boxes.
    """

    def __init__(
        self,
        network: Runnable,
        device: torch.device,
        *,
        half: bool = False,
        mirrored: bool = False,
        single: bool = False,
    ) -> None:
        self.network, self.device, self.mirrored, self.single = network, device, mirrored, single
        self.dtype = torch.float16 if half else torch.float32
        self.detector = Detector(network)
        self.size_wh = (network.plan.input.width, network.plan.input.height)

    def predict(
        self,
        images: Sequence[NDArray[np.uint8]],
        selection: Selection | None = None,
        *,
        letter_box: bool | None = None,
        kernel: str = KERNELS[0],
        batch_size: int = 8,
    ) -> list[Detections]:
        """Detections of each image, in its own pixels, best first.

        images: uint8 (height, width, 3) RGB, of any sizes. letter_box: keep the aspect ratio; None: as the cfg says.
        kernel: see utils.resize.network_input. batch_size: most images in one forward pass.
        Raises InputError for what is no such image.
        """
        boxed = self.network.plan.net.letter_box if letter_box is None else letter_box
        make, found = self.boxes(selection or Selection()), []
        for start in range(0, len(images), batch_size):
            group = [
                self._fitted(number, images[number], boxed, kernel) for number in range(start, len(images))[:batch_size]
            ]
            with torch.inference_mode():
                outputs = self.forward(torch.from_numpy(np.stack([pixels for pixels, _ in group])))
                found += make(outputs, [fit for _, fit in group])
        return found

    def forward(self, images: Tensor) -> Outputs:
        """Outputs of the heads for images (b, channels, height, width), and on demand for their mirror images."""
        images = images.to(self.device, self.dtype)
        views = (images, images.flip(3)) if self.mirrored else (images,)
        return tuple(self.network(view) for view in views)

    def boxes(self, selection: Selection) -> Callable[[Outputs, Sequence[Letterbox]], list[Detections]]:
        """What makes detections, in pixels of the images, out of the outputs of `forward`."""

        def make(outputs: Outputs, fits: Sequence[Letterbox]) -> list[Detections]:
            views = [self.detector.candidates(view, selection.conf, self.size_wh) for view in outputs]
            found = views[0] if len(views) == 1 else _with_mirrored(*views)
            chosen = self.detector.choose(found, fits, selection)
            return [_single_class(each) for each in chosen] if self.single else chosen

        return make

    def _fitted(
        self, number: int, image: NDArray[np.uint8], letter_box: bool, kernel: str
    ) -> tuple[NDArray[np.float32], Letterbox]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            what = f"{image.dtype} {image.shape}"
            raise InputError(f"image {number}: is {what}, expected uint8 (height, width, 3), colours red, green, blue")
        fit = Letterbox(image_wh=(image.shape[1], image.shape[0]), network_wh=self.size_wh, letter_box=letter_box)
        if self.network.plan.input.channels == 1:
            image = to_gray(image)
        return network_input(np.ascontiguousarray(image), fit, kernel), fit

    def wait(self) -> None:
        """Until a GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _single_class(found: Detections) -> Detections:
    return replace(found, class_ids=np.zeros_like(found.class_ids))


def _with_mirrored(plain: Candidates, mirrored: Candidates) -> Candidates:
    """Candidates of the images and, mirrored back, those of their mirror images."""
    boxes = mirrored.cxcywh_rel.clone()
    boxes[:, 0] = 1 - boxes[:, 0]
    return Candidates(
        image=torch.cat([plain.image, mirrored.image]),
        cxcywh_rel=torch.cat([plain.cxcywh_rel, boxes]),
        scores=torch.cat([plain.scores, mirrored.scores]),
        objectness=torch.cat([plain.objectness, mirrored.objectness]),
    )
