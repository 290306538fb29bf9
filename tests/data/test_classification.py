"""Data sets for classifiers: one folder per class, and CIFAR-10 in both of its versions."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import train
from data.dataset import class_of_path
from data.evaluation_set import make_classification_set
from data.image import read_image
from data.sources import open_data
from tests.data.sets import write_png
from utils.cli import EXIT_OK, run_script
from utils.errors import InputError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NET = "[net]\nwidth=16\nheight=16\nchannels=3\nbatch=4\nsubdivisions=1\nmax_batches=2\n"
CFG = NET + "[convolutional]\nfilters=7\nsize=1\n[avgpool]\n[softmax]\n"


def imagenet(folder: Path, classes: tuple[str, ...] = ("cat", "catfish", "n01440764")) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for name in classes:
            for number in range(count):
                path = folder / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_png(path, (8, 8))
    return folder


def test_folders_are_classes(tmp_path: Path) -> None:
    dataset = open_data(imagenet(tmp_path / "set"))
    assert dataset.path_labels and dataset.names == ("cat", "catfish", "n01440764")
    assert {split: len(images) for split, images in dataset.splits.items()} == {"train": 9, "val": 6}
    images = make_classification_set(dataset, "val", 3, "a.cfg")
    assert images.class_ids.tolist() == [0, 0, 1, 1, 2, 2]  # although "catfish" contains "cat"
    for image in dataset.splits["train"]:
        found = [label for label in dataset.labels_in_paths if label in str(image)]
        assert found == [f"/{image.parent.name}/"]


def test_other_names_and_a_missing_split(tmp_path: Path) -> None:
    imagenet(tmp_path / "set")
    (tmp_path / "words").write_text("tabby\nwels\ntench\n")
    dataset = open_data(tmp_path / "set", "test", names=tmp_path / "words")
    assert dataset.names == ("tabby", "wels", "tench") and len(dataset.splits["test"]) == 6
    (tmp_path / "words").write_text("tabby\n")
    with pytest.raises(InputError, match="3 folders of classes and 1 names"):
        open_data(tmp_path / "set", names=tmp_path / "words")


def test_folders_that_do_not_determine_the_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class 'train' is also the name of a folder above"):
        open_data(imagenet(tmp_path / "a", ("train", "ship")))
    with pytest.raises(InputError, match="class 'b' is also the name of a folder above"):
        open_data(imagenet(tmp_path / "b", ("b", "c")))
    imagenet(tmp_path / "d")
    (tmp_path / "d" / "val" / "new").mkdir()
    with pytest.raises(InputError, match=r"val: class 'new' is not in .*train"):
        open_data(tmp_path / "d")
    (tmp_path / "e" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="train: no images, expected files such as"):
        open_data(tmp_path / "e")


def test_detection_folders_are_not_class_folders(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / "train" / name).mkdir(parents=True)
    write_png(tmp_path / "train" / "images" / "a.png", (8, 8))
    assert not open_data(tmp_path).path_labels
    imagenet(tmp_path / "by-day")
    assert open_data(tmp_path / "by-day").path_labels
    for split in ("train", "val"):
        (tmp_path / "by-day" / split / "cat" / "0.txt").write_text("0 .5 .5 1 1\n")
    assert not open_data(tmp_path / "by-day").path_labels


def _python_version(folder: Path, batches: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    for name, (labels, pixels) in batches.items():
        content = {b"batch_label": b"one", b"labels": labels.tolist(), b"data": pixels}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES, "num_vis": 3072}, protocol=2))


def _binary_version(folder: Path, batches: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    for name, (labels, pixels) in batches.items():
        (folder / f"{name}.bin").write_bytes(np.column_stack([labels, pixels]).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")


@pytest.mark.parametrize("write", [_python_version, _binary_version])
def test_cifar(write: Callable[..., None], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    batches = {
        name: (rng.permutation(10).astype(np.uint8), rng.integers(0, 256, (10, 3072), dtype=np.uint8))
        for name in ("data_batch_1", "data_batch_2", "test_batch")
    }
    write(tmp_path, batches)
    dataset = open_data(tmp_path)
    assert list(dataset.names) == NAMES
    assert {split: len(images) for split, images in dataset.splits.items()} == {"train": 20, "test": 10}
    for split, names in (("train", ("data_batch_1", "data_batch_2")), ("test", ("test_batch",))):
        for image in dataset.splits[split]:
            batch, _, number = image.stem.rpartition("_")
            assert batch in names
            labels, pixels = batches[batch]
            assert class_of_path(str(image), dataset.labels_in_paths) == labels[int(number)]
            wanted = pixels[int(number)].reshape(3, 32, 32).transpose(1, 2, 0)  # stored as red, green and blue planes
            np.testing.assert_array_equal(read_image(image), wanted)
    first = dataset.splits["train"][0].stat().st_mtime_ns
    assert open_data(tmp_path, "val").splits["val"] == dataset.splits["test"]
    assert dataset.splits["train"][0].stat().st_mtime_ns == first  # unpacked once


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must not run",)


class _Crashing:
    """An object whose unpickling crashes NumPy: a dtype with this state."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.dtype, ("u1", False, True), (3, "|", None, -1, -1, 0)


_PIXELS = np.zeros((1, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(_Harmful()), r"builtins.print is not data|__builtin__.print is not data"),
        (pickle.dumps([1]), "expected a dictionary"),
        (pickle.dumps({"labels": [0], "data": np.zeros((2, 3072), np.uint8)}), r"expected uint8 \(1, 3072\)"),
        (pickle.dumps({"labels": [10], "data": _PIXELS}), "has an invalid label"),
        (pickle.dumps({"labels": [2**63], "data": _PIXELS}), "has an invalid label"),
        (pickle.dumps({"labels": [[1]], "data": _PIXELS}), "has an invalid label"),
        (pickle.dumps({"labels": ["1"], "data": _PIXELS}), "has an invalid label"),
        (pickle.dumps({"labels": [0], "data": _Crashing()}), "has no labels and data"),
        (pickle.dumps({"labels": [0], "data": _PIXELS[:, :9]}), r"expected uint8 \(1, 3072\)"),
        (pickle.dumps({"labels": [0], "data": _PIXELS.astype(np.int8)}), r"expected uint8 \(1, 3072\)"),
        (b"no pickle", "is not a CIFAR-10 batch"),
    ],
)
def test_bad_python_batches(content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _python_version(tmp_path, {})
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_data(tmp_path)
    assert capsys.readouterr().out == "" and not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_truncated_binary_batch(tmp_path: Path) -> None:
    _binary_version(tmp_path, {"data_batch_1": (np.zeros(1, np.uint8), np.zeros((1, 3072), np.uint8))})
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3000))
    with pytest.raises(InputError, match="has 3000 bytes, expected 3073 for each image"):
        open_data(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    with pytest.raises(InputError, match=r"neither batches.meta.txt nor batches.meta"):
        open_data(tmp_path)


def test_a_classifier_trains_on_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    imagenet(tmp_path / "set")
    (tmp_path / "a.cfg").write_text(CFG)
    flags = ["--cfg", "a.cfg", "--data", "set", "--workers", "0", "--device", "cpu"]
    assert run_script(train.main, flags) == EXIT_OK
    fitted = (tmp_path / "runs" / "train" / "exp" / "a.cfg").read_text()
    assert "filters=3" in fitted
    problems = tmp_path / "runs" / "train" / "exp" / "problems.txt"
    assert not problems.exists() or "class of path" not in problems.read_text()
