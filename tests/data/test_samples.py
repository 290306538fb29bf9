"""data/samples is what its command draws, and small."""

from __future__ import annotations

import numpy as np
import pytest

from data.frames import Frame, open_frames
from data.image import read_image
from data.scenes import samples
from tests.paths import REPOSITORY

FOLDER = REPOSITORY / samples.OUT


@pytest.mark.parametrize("number", range(len(samples.IMAGES)))
def test_images_are_the_drawn_ones(number: int) -> None:
    name, size_wh = list(samples.IMAGES.items())[number]
    drawn = samples.sample_image(number, size_wh)
    error = np.abs(drawn.astype(float) - read_image(FOLDER / f"{name}.jpg"))
    assert error.mean() < 4  # what JPEG loses


def test_the_clip_is_the_drawn_one() -> None:
    with open_frames(str(FOLDER / samples.CLIP)) as found:
        frames = [frame for frame in found if isinstance(frame, Frame)]
    drawn = list(samples.clip_frames())
    assert len(frames) == len(drawn) == samples.CLIP_FRAMES
    assert all(np.abs(a.image.astype(float) - b).mean() < 10 for a, b in zip(frames[::10], drawn[::10], strict=True))


def test_together_they_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000
