"""The files in data/samples are those that its command draws, and small."""

from __future__ import annotations

import numpy as np
import pytest

from data.frames import Frame, open_frames
from data.image import read_image
from data.scenes import __main__ as samples
from tests.paths import REPOSITORY

FOLDER = REPOSITORY / "data" / "samples"


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_images_are_the_drawn_ones(name: str) -> None:
    error = np.abs(samples.sample_scene(name).image.astype(float) - read_image(FOLDER / f"{name}.jpg"))
    assert error.mean() < 4  # the loss of JPEG compression


def test_the_clip_is_the_drawn_one() -> None:
    with open_frames(str(FOLDER / samples.CLIP)) as found:
        frames = [frame for frame in found if isinstance(frame, Frame)]
    drawn = list(samples.clip_frames())
    assert len(frames) == len(drawn) == samples.CLIP_FRAMES
    assert all(np.abs(a.image.astype(float) - b).mean() < 10 for a, b in zip(frames[::10], drawn[::10], strict=True))


def test_the_folder_holds_the_samples_and_is_small() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.jpg" for name in samples.SAMPLES} | {samples.CLIP}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_500_000
