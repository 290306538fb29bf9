"""Make the image in README from what `python detect.py` writes for the sample images.

python -m docs.readme_image
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.cli import EXIT_OK, run_script
from utils.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images" / "detect.jpg"
ROWS = (("scene1.jpg", "scene2.jpg"), ("scene3.jpg", "scene4.jpg"))
WIDTH_PX, QUALITY = 1000, 80


def annotated_samples() -> NDArray[np.uint8]:
    """The annotated sample images, uint8 BGR (height, WIDTH_PX, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "detect.py", "--project", folder]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return np.vstack([_row([_read(Path(folder) / "exp" / name) for name in row]) for row in ROWS])


def _read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None, path
    return np.asarray(image, np.uint8)


def _row(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Join images side by side at a common height, to a total width of WIDTH_PX."""
    shapes = [image.shape[1] / image.shape[0] for image in images]
    height = round(WIDTH_PX / sum(shapes))
    widths = np.diff([0, *np.rint(np.cumsum(shapes) * WIDTH_PX / sum(shapes)).astype(int)])
    sized: list[NDArray[np.uint8]] = [
        np.asarray(cv2.resize(image, (int(width), height), interpolation=cv2.INTER_AREA), np.uint8)
        for image, width in zip(images, widths, strict=True)
    ]
    return np.hstack(sized)


def main(arguments: Sequence[str] | None = None) -> int:
    OUT.parent.mkdir(exist_ok=True)
    encoded = cv2.imencode(".jpg", annotated_samples(), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    with atomic_write(OUT) as stream:
        stream.write(encoded.tobytes())
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size:,} bytes")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))
