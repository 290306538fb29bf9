"""Augmentations from an albumentations file: boxes follow the image, and mistakes in the file are reported."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from data.augment.albumentations import AlbumentationsAugment, read_albumentations
from data.augment.base import Sample
from utils.errors import InputError

albumentations = pytest.importorskip("albumentations")

TRUTH = np.array([[0.3, 0.25, 0.2, 0.1, 2], [0.9, 0.9, 0.3, 0.3, 5]], np.float32)


def _image() -> np.ndarray:
    image = np.zeros((80, 120, 3), np.uint8)
    image[16:24, 24:48] = 255
    return image


def _albumentations(*transforms: object) -> AlbumentationsAugment:
    return AlbumentationsAugment(albumentations.to_dict(albumentations.Compose(transforms)), "transforms.yaml")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_saved_file_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"transforms.{suffix}"
    albumentations.save(albumentations.Compose([albumentations.HorizontalFlip(p=1)]), path, data_format=suffix)
    transforms = read_albumentations(path)
    assert str(transforms) == "HorizontalFlip"
    image, truth = transforms(Sample(_image(), TRUTH), np.random.default_rng(0))
    np.testing.assert_array_equal(image, _image()[:, ::-1])
    np.testing.assert_allclose(truth[0], [0.7, 0.25, 0.2, 0.1, 2], atol=1e-6)
    np.testing.assert_allclose(truth[1], [0.125, 0.875, 0.25, 0.25, 5], atol=1e-6)  # clipped at the border first


@pytest.mark.parametrize(
    "transform",
    [
        albumentations.VerticalFlip(p=1),
        albumentations.Affine(scale=(0.7, 1.1), translate_percent=0.1, p=1),
        albumentations.RandomSizedBBoxSafeCrop(60, 60, p=1),
        albumentations.Resize(40, 200, p=1),
    ],
)
def test_boxes_stay_on_their_objects(transform: object) -> None:
    transforms = _albumentations(transform)
    for seed in range(10):
        image, truth = transforms(Sample(_image(), TRUTH[:1]), np.random.default_rng(seed))
        assert image.shape == (80, 120, 3) and truth[0, 4] == 2
        rows, columns = np.nonzero(image[..., 0] > 127)
        size = np.array([120, 80])
        low, high = (truth[0, :2] - truth[0, 2:4] / 2) * size, (truth[0, :2] + truth[0, 2:4] / 2) * size
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose([*low, *high], found, atol=2.5)


def test_boxes_that_leave_the_image_are_dropped() -> None:
    crop = albumentations.Crop(x_min=0, y_min=0, x_max=60, y_max=40, p=1)
    _, truth = _albumentations(crop)(Sample(_image(), TRUTH), np.random.default_rng(0))
    assert truth[:, 4].tolist() == [2]


def test_deterministic_by_generator_also_after_pickling() -> None:
    transforms = _albumentations(albumentations.RandomBrightnessContrast(p=1), albumentations.HorizontalFlip(p=0.5))
    copy = pickle.loads(pickle.dumps(transforms))
    for seed in range(5):
        first = transforms(Sample(_image() // 2, TRUTH), np.random.default_rng(seed))
        again = copy(Sample(_image() // 2, TRUTH), np.random.default_rng(seed))
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])


def test_no_boxes() -> None:
    image, truth = _albumentations(albumentations.HorizontalFlip(p=1))(
        Sample(_image(), TRUTH[:0]), np.random.default_rng(0)
    )
    assert truth.shape == (0, 5) and image.shape == (80, 120, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "expected a mapping"),
        ("{unclosed", "not valid YAML"),
        ("{transform: {__class_fullname__: NoSuchTransform, p: 1}}", "cannot be read as albumentations"),
        ("{}", "cannot be read as albumentations"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_albumentations(tmp_path / "a.yaml")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such augmentation file"):
        read_albumentations(tmp_path / "none.yaml")
