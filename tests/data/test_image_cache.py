"""Decoded images in memory and on disk."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.image import read_image
from data.image_cache import DISK, RAM, CacheOptions, open_cache

SIZES = ((30, 20), (17, 33), (8, 8))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three images, a file that is not an image, and a path without a file."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "set" / f"{number}.png" for number in range(5)]
    paths[0].parent.mkdir()
    for path, (width, height) in zip(paths, SIZES, strict=False):
        cv2.imwrite(str(path), rng.integers(0, 255, (height, width, 3), np.uint8))
    paths[3].write_bytes(b"\xff\xd8 no image")
    return paths


def cache_options(tmp_path: Path, kind: str, shared: bool = False) -> CacheOptions:
    return CacheOptions(kind=kind, folder=tmp_path / "cache", shared=shared)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "shared"), [(RAM, False), (RAM, True), (DISK, False)])
def test_a_cache_returns_the_images_and_can_be_pickled(
    tmp_path: Path, images: list[Path], kind: str, shared: bool, channels: int
) -> None:
    cache = open_cache(images, channels, cache_options(tmp_path, kind, shared))
    assert cache is not None and len(cache) == 5
    for index in range(3):
        np.testing.assert_array_equal(cache[index], read_image(images[index], channels))
    assert cache[3] is None and cache[4] is None


@pytest.mark.parametrize(("kind", "shared"), [(RAM, True), (DISK, False)])
def test_pixels_are_not_copied_to_spawned_workers(tmp_path: Path, images: list[Path], kind: str, shared: bool) -> None:
    cache = open_cache(images, 3, cache_options(tmp_path, kind, shared))
    assert cache is not None
    small = len(ForkingPickler.dumps(cache))
    many = tmp_path / "large.png"
    cv2.imwrite(str(many), np.zeros((500, 500, 3), np.uint8))
    large = open_cache([*images[:4], many], 3, cache_options(tmp_path, kind, shared))
    assert abs(len(ForkingPickler.dumps(large)) - small) < 100


def test_a_pickled_file_cache_is_mapped_again(tmp_path: Path, images: list[Path]) -> None:
    arrived = pickle.loads(ForkingPickler.dumps(open_cache(images, 3, cache_options(tmp_path, DISK))))
    np.testing.assert_array_equal(arrived[1], read_image(images[1]))


def test_a_cache_file_is_reused_until_an_image_changes(
    tmp_path: Path, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    where = cache_options(tmp_path, DISK)
    with caplog.at_level(logging.INFO):
        open_cache(images, 3, where)
        (file,) = where.folder.iterdir()
        written = file.stat()
        assert open_cache(images, 3, where) is not None
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
        cv2.imwrite(str(images[1]), np.full((33, 17, 3), 7, np.uint8))
        os.utime(images[1], ns=(1, 1))
        again = open_cache(images, 3, where)
    assert "have changed" in caplog.text
    assert again is not None and np.all(again[1] == 7)
    assert len(list(where.folder.iterdir())) == 1


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 300)])
def test_a_damaged_cache_file_is_rebuilt(tmp_path: Path, images: list[Path], spoil: Callable[[Path], object]) -> None:
    open_cache(images, 3, cache_options(tmp_path, DISK))
    spoil(next((tmp_path / "cache").iterdir()))
    cache = open_cache(images, 3, cache_options(tmp_path, DISK))
    assert cache is not None
    np.testing.assert_array_equal(cache[0], read_image(images[0]))


@pytest.mark.parametrize("kind", [RAM, DISK])
def test_a_cache_that_does_not_fit_is_skipped(
    tmp_path: Path, images: list[Path], kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("data.image_cache.free_memory", lambda: 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    assert open_cache(images, 3, cache_options(tmp_path, kind)) is None
    assert "are not cached" in caplog.text
    assert ("--cache-images disk" in caplog.text) == (kind == RAM)


def test_a_folder_that_cannot_be_written_to_is_a_warning(
    tmp_path: Path, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert open_cache(images, 3, cache_options(tmp_path, DISK)) is None
    assert "are not cached" in caplog.text
