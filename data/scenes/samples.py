"""Draws data/samples: a few images and a short clip to try a detector on.

python -m data.scenes.samples [--out DIR]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.scenes.painter import paint_scene
from data.video import VideoWriter
from utils.cli import EXIT_OK, run_script, script_parser
from utils.files import atomic_write

OUT = Path("data") / "samples"
SEED = 2026  # another one than that of data sets to train on, so that nobody has learned these images by heart
IMAGES = {"scene1": (640, 480), "scene2": (416, 416), "scene3": (480, 640), "scene4": (720, 400)}
FEWEST = 5  # objects in an image
CLIP, CLIP_FPS, CLIP_FRAMES = "scenes.mp4", 15.0, 75
CLIP_SIDE, CLIP_WAY = 320, 640  # pixels: side of a frame, and how far the camera travels
_JPEG_QUALITY = 90


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    for number, (name, size_wh) in enumerate(IMAGES.items()):
        bgr = cv2.cvtColor(sample_image(number, size_wh), cv2.COLOR_RGB2BGR)
        with atomic_write(options.out / f"{name}.jpg") as stream:
            stream.write(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())
    with VideoWriter(options.out / CLIP, fps=CLIP_FPS) as video:
        for frame in clip_frames():
            video.write(frame)
    print(f"{options.out}: {len(IMAGES)} images and a clip of {CLIP_FRAMES} frames")
    return EXIT_OK


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("python -m data.scenes.samples", __doc__)
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"folder to write, default {OUT}")
    return parser.parse_args(arguments)


def sample_image(number: int, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Sample image `number`, uint8 RGB: the first scene of its seeds with enough in it."""
    scenes = (paint_scene(np.random.default_rng((SEED, number, attempt)), size_wh) for attempt in range(100))
    return next(scene.image for scene in scenes if len(scene.class_ids) >= FEWEST)


def clip_frames() -> Iterator[NDArray[np.uint8]]:
    """Frames of the clip: a camera that travels along a wide scene."""
    wide = sample_image(len(IMAGES), (CLIP_SIDE + CLIP_WAY, CLIP_SIDE))
    for left in np.linspace(0, CLIP_WAY, CLIP_FRAMES).round().astype(int):
        yield np.ascontiguousarray(wide[:, left : left + CLIP_SIDE])


if __name__ == "__main__":
    sys.exit(run_script(main))
