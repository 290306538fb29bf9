"""Data sets and loader: determinism, shapes, and the handling of broken images and labels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data.augment.classification import ClassificationAugment
from data.augment.detection import DetectionAugment
from data.dataset import ClassificationDataset, DetectionDataset, SampleKey
from data.loader import BatchPlan, TrainLoader
from data.sampling import ImageSampler, MultiScaleShapes
from data.scenes import NAMES, make_scenes
from data.sources import open_data
from utils.errors import InputError, RunError
from utils.net_options import AugmentOptions

KEY = SampleKey(3, 5, 96, 64)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", 10, size=96)


def _augment(
    classes: int = len(NAMES), most: int = 30, letter_box: bool = False, **options: object
) -> DetectionAugment:
    settings: dict[str, object] = {"hue": 0.1, "saturation": 1.5, "exposure": 1.5} | options
    return DetectionAugment(
        options=AugmentOptions(**settings),  # type: ignore[arg-type]
        letter_box=letter_box,
        jitter=0.3,
        resize=1.5,
        classes=classes,
        max_boxes=most,
    )


def _samples(path: Path, augment: DetectionAugment, seed: int = 0, channels: int = 3) -> DetectionDataset:
    data = open_data(path, "train")
    images = data.splits["train"]
    return DetectionDataset(
        images=images, read=data.read, augment=augment, seed=seed, channels=channels, sampler=ImageSampler(len(images))
    )


def _dataset(path: Path, seed: int = 1, **options: Any) -> DetectionDataset:
    return _samples(path, _augment(**options), seed=seed)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"mosaic": True},
    {"mosaic": True, "mosaic_bound": True, "blur": 9, "gaussian_noise": 20},
    {"mixup": 1},
    {"letter_box": True},
    {"flip": False, "hue": 0.0, "saturation": 1.0, "exposure": 1.0},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_a_sample_is_what_the_network_and_the_loss_expect(scenes: Path, options: dict[str, Any]) -> None:
    dataset = _dataset(scenes, **options)
    for slot in range(12):
        sample = dataset[KEY._replace(slot=slot)]
        assert sample.image is not None
        assert sample.image.shape == (3, 64, 96) and sample.image.dtype == np.uint8
        assert sample.ground_truth.shape == (30, 5) and sample.ground_truth.dtype == np.float32
        count = int((sample.ground_truth[:, 2] > 0).sum())
        boxes = sample.ground_truth[:count]
        assert (boxes[:, 2:4] > 0).all() and not sample.ground_truth[count:].any()
        assert (boxes[:, :2] - boxes[:, 2:4] / 2 > -0.02).all() and (boxes[:, :2] + boxes[:, 2:4] / 2 < 1.02).all()
        assert not sample.findings


@pytest.mark.parametrize("options", VARIANTS)
def test_same_seed_and_key_same_sample(scenes: Path, options: dict[str, Any]) -> None:
    first, again = _dataset(scenes, **options)[KEY], pickle.loads(pickle.dumps(_dataset(scenes, **options)))[KEY]
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.ground_truth, again.ground_truth)
    assert first.image is not None
    for other in (_dataset(scenes, seed=2, **options)[KEY], _dataset(scenes, **options)[KEY._replace(slot=6)]):
        assert other.image is not None and not np.array_equal(first.image, other.image)


def test_half_of_the_samples_are_mixed(tmp_path: Path) -> None:
    """Each image has a single flat colour, so a mosaic has several colours."""
    for number, level in enumerate((0, 80, 160, 240)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 64, 3), level, np.uint8))
        (tmp_path / f"{number}.txt").write_text("0 .5 .5 .4 .4\n")
    settings = {"mosaic": True, "hue": 0.0, "saturation": 1.0, "exposure": 1.0}
    dataset = _samples(tmp_path, _augment(classes=1, **settings), seed=0)  # type: ignore[arg-type]
    colours = [len(np.unique(dataset[SampleKey(0, slot, 32, 32)].image)) for slot in range(300)]  # type: ignore[arg-type]
    share = 0.5 * (1 - 4 / 4**4)
    assert np.mean(np.array(colours) > 1) == pytest.approx(share, abs=0.08)


def test_boxes_stay_on_their_objects(tmp_path: Path) -> None:
    """A white rectangle on black: after jitter, resize, flip and letterbox, the box still encloses the rectangle."""
    drawn = np.zeros((100, 140, 3), np.uint8)
    drawn[30:70, 20:90] = 255
    cv2.imwrite(str(tmp_path / "a.png"), drawn)
    (tmp_path / "a.txt").write_text(f"0 {55 / 140} .5 {70 / 140} .4\n")
    for letter_box in (False, True):
        augment = _augment(classes=1, letter_box=letter_box, hue=0.0, saturation=1.0, exposure=1.0)
        dataset = _samples(tmp_path, augment, seed=0)
        for slot in range(60):
            image, truth, _ = dataset[SampleKey(0, slot, 160, 128)]
            assert image is not None
            x, y, w, h = cv2.boundingRect((image[0] > 140).astype(np.uint8))
            if not truth.any():
                assert w * h < 20
                continue
            size = np.array([160, 128])
            low, high = (truth[0, :2] - truth[0, 2:4] / 2) * size, (truth[0, :2] + truth[0, 2:4] / 2) * size
            np.testing.assert_allclose([*low, *high], [x, y, x + w, y + h], atol=2.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_the_workers(scenes: Path, workers: int) -> None:
    plan = BatchPlan(shapes=MultiScaleShapes(width=64, height=64, mini_batch=3), subdivisions=2)
    dataset = _dataset(scenes, mosaic=True)
    loader = iter(TrainLoader(dataset, plan, workers=workers, start=4))
    for iteration, subdivision in ((4, 0), (4, 1), (5, 0)):
        batch = next(loader)
        assert (batch.iteration, batch.subdivision, batch.size_wh) == (iteration, subdivision, (64, 64))
        for place, key in enumerate(plan.keys(iteration, subdivision)):
            sample = dataset[key]
            np.testing.assert_array_equal(batch.images[place].numpy(), sample.image)
            np.testing.assert_array_equal(batch.ground_truth[place].numpy(), sample.ground_truth)
        assert batch.images.dtype == torch.uint8


def test_arguments_of_a_spawned_worker_can_be_pickled(scenes: Path) -> None:
    """Starting a worker takes seconds, so only pickling of its arguments (data set and two functions) is tested."""
    loader = TrainLoader(
        _dataset(scenes), BatchPlan(shapes=MultiScaleShapes(width=64, height=64, mini_batch=3), subdivisions=1)
    )
    parts = loader._loader.dataset, loader._loader.collate_fn, loader._loader.worker_init_fn
    dataset, collate, _ = pickle.loads(pickle.dumps(parts))
    assert len(collate([dataset[KEY], dataset[KEY]])[0]) == 2


def test_ranks_share_a_batch() -> None:
    sizes = MultiScaleShapes(width=64, height=64, mini_batch=5)
    whole = BatchPlan(shapes=sizes, subdivisions=2).keys(7, 1)
    parts = [BatchPlan(shapes=sizes, subdivisions=2, rank=rank, world_size=2).keys(7, 1) for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == whole and [key.slot for key in whole] == [5, 6, 7, 8, 9]


def test_a_broken_image_is_skipped_and_listed_once(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = open_data(scenes).splits["train"][0]
    (tmp_path / "good.jpg").write_bytes(good.read_bytes())
    (tmp_path / "good.txt").write_text("0 .5 .5 .2 .2\n40 .5 .5 .2 .2\nnonsense\n1 .5 .5 0 0\n")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    dataset = _samples(tmp_path, _augment(), seed=0)
    plan = BatchPlan(shapes=MultiScaleShapes(width=64, height=64, mini_batch=8), subdivisions=1)
    loader = TrainLoader(dataset, plan)
    batches = iter(loader)
    images = [next(batches).images for _ in range(3)]
    assert all(len(batch) == 8 for batch in images)
    texts = sorted(str(finding) for finding in loader.findings)
    assert len(texts) == 3 and max(loader.findings.values()) > 3
    assert any("broken.jpg" in text for text in texts)
    assert any("class 40, expected 0 to 9" in text for text in texts)
    assert any("good.txt:3" in text for text in texts)
    assert len([record for record in caplog.records if "broken.jpg" in record.message]) == 1


def test_an_image_with_only_malformed_labels_is_not_sampled(scenes: Path, tmp_path: Path) -> None:
    for name, labels in (("good", "0 .5 .5 .2 .2"), ("negative", ""), ("malformed", "0.5 .5 .2 .2")):
        (tmp_path / f"{name}.jpg").write_bytes(open_data(scenes).splits["train"][0].read_bytes())
        (tmp_path / f"{name}.txt").write_text(labels)
    dataset = _samples(tmp_path, _augment(), seed=0)
    used = {path.stem for slot in range(40) for path in dataset.files(KEY._replace(slot=slot))}
    assert used == {"good", "negative"}


def test_no_readable_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    dataset = _samples(tmp_path, _augment(), seed=0)
    plan = BatchPlan(shapes=MultiScaleShapes(width=64, height=64, mini_batch=2), subdivisions=1)
    with pytest.raises(RunError, match=r"broken\.jpg"):
        next(iter(TrainLoader(dataset, plan)))


def test_a_data_set_of_one_image_gives_full_batches(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(open_data(scenes).splits["train"][0].read_bytes())
    dataset = _samples(tmp_path, _augment(mosaic=True), seed=0)
    plan = BatchPlan(shapes=MultiScaleShapes(width=64, height=64, mini_batch=4), subdivisions=1)
    assert next(iter(TrainLoader(dataset, plan))).images.shape == (4, 3, 64, 64)


def test_grey_networks_get_one_channel(scenes: Path) -> None:
    options = _augment(mosaic=True, blur=5, gaussian_noise=9)
    dataset = _samples(scenes, options, seed=0, channels=1)
    for slot in range(8):
        image = dataset[SampleKey(0, slot, 64, 64)].image
        assert image is not None and image.shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mosaic": True, "letter_box": True}, "letter_box=1 and mosaic=1"),
        ({"mixup": 9}, "mixup=9"),
    ],
)
def test_impossible_options_are_rejected(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _augment(**options)  # type: ignore[arg-type]


def test_options_without_effect_are_named(caplog: pytest.LogCaptureFixture) -> None:
    _augment(cutmix=True, angle=5.0).warn()
    assert "cutmix has no effect" in caplog.text and "angle=5 has no effect" in caplog.text


def test_classifier_batches(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog", "cat_dog", "cow")):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 50, 3), 60 * number, np.uint8))
    images = sorted(tmp_path.iterdir())
    augment = ClassificationAugment(options=AugmentOptions(), min_crop=32, max_crop=64)
    dataset = ClassificationDataset(
        images=images, labels=["cat", "dog"], augment=augment, seed=0, label_smooth_eps=0.1, sampler=ImageSampler(4)
    )
    plan = BatchPlan(shapes=MultiScaleShapes(width=32, height=32, mini_batch=16), subdivisions=1)
    loader = TrainLoader(dataset, plan)
    batch = next(iter(loader))
    assert batch.images.shape == (16, 3, 32, 32) and batch.ground_truth.shape == (16, 2)
    assert {tuple(np.round(row.astype(float), 2).tolist()) for row in batch.ground_truth.numpy()} <= {
        (0.9, 0.1),
        (0.1, 0.9),
        (0.9, 0.9),
        (0.1, 0.1),
    }
    assert {Path(finding.place).name for finding in loader.findings} == {"cat_dog.png", "cow.png"}
