"""Generate a dataset of drawn machine parts (images, labels, names and the .data file), or the samples in data/samples.

python -m data.scenes --out runs/shapes --count 200
python -m data.scenes --out data/samples --samples
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.image import save_image
from data.scenes.folder import make_scenes
from data.scenes.painting import Scene, lay_out, photographed
from data.video import DEFAULT_CODEC, VideoWriter
from utils.cli import EXIT_OK, above_zero, run_script, script_parser, whole

SAMPLES_SEED = 2026  # not the default of data sets, so that no detector is trained on the samples
SAMPLES = {  # surface and size
    "scene1": ("wood", (640, 480)),
    "scene2": ("mat", (480, 480)),
    "scene3": ("belt", (480, 480)),
    "scene4": ("steel", (640, 480)),
}
CLIP, CLIP_FPS, CLIP_FRAMES = "scenes.mp4", 15.0, 75
_CLIP_WH, _CLIP_STEP = (416, 320), 12  # pixels: frame size, and movement of the belt per frame


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("python -m data.scenes", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add(
        "--count",
        type=above_zero,
        default=500,
        metavar="N",
        help="number of training images, default 500; plus a fifth of that for validation",
    )
    add("--img-size", type=above_zero, default=416, metavar="N", help="image width and height in pixels, default 416")
    add("--seed", type=whole, default=0, help="random seed, default 0")
    add("--samples", action="store_true", help="draw the sample images and the clip instead of a dataset")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.samples:
        _write_samples(options.out)
    else:
        print(make_scenes(options.out, options.count, options.seed, options.img_size))
    return EXIT_OK


def _write_samples(folder: Path) -> None:
    for name in SAMPLES:
        save_image(folder / f"{name}.jpg", sample_scene(name).image)
    with VideoWriter(folder / CLIP, fps=CLIP_FPS, codec=DEFAULT_CODEC) as video:
        for frame in clip_frames():
            video.write(frame)
    print(f"{folder}: {len(SAMPLES)} images and a clip of {CLIP_FRAMES} frames")


def sample_scene(name: str) -> Scene:
    """Return a sample image and its labels."""
    surface, size_wh = SAMPLES[name]
    rng = np.random.default_rng((SAMPLES_SEED, list(SAMPLES).index(name)))
    scene = lay_out(rng, size_wh, surface, 0.32 * max(size_wh), fill=1)
    return scene._replace(image=photographed(scene.image, rng))


def clip_frames() -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of the clip: parts on a belt that moves to the left under a fixed camera."""
    width, height = _CLIP_WH
    way = _CLIP_STEP * (CLIP_FRAMES - 1)
    belt = lay_out(
        np.random.default_rng((SAMPLES_SEED, 99)), (width + way, height), "belt", 0.36 * width, fill=0.9
    ).image
    for left in range(0, way + 1, _CLIP_STEP):
        yield photographed(belt[:, left : left + width], np.random.default_rng(SAMPLES_SEED))


if __name__ == "__main__":
    sys.exit(run_script(main))
