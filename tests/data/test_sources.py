from __future__ import annotations

import errno
import json
import logging
import pickle
import re
from pathlib import Path

import pytest

from data.image import image_size
from data.sources import hold_out, open_data
from data.writing import write_data
from tests.data.sets import write_png
from tests.paths import shared
from utils.errors import InputError


def test_bccd() -> None:
    dataset = open_data(shared("datasets/bccd"))
    assert dataset.names == ("Platelets", "RBC", "WBC")
    assert {split: len(images) for split, images in dataset.splits.items()} == {
        "train": 205,
        "val": 87,
        "trainval": 292,
        "test": 72,
    }
    boxes = sum(len(a) for split in ("trainval", "test") for a in dataset.annotations(split))
    assert boxes == 4155 + 372 + 361


def test_coco128() -> None:
    dataset = open_data(shared("datasets/coco128/instances_train2017.json"), "val")
    assert len(dataset.names) == 80 and dataset.category_ids is not None and dataset.category_ids[-1] == 90
    annotations = list(dataset.annotations("val"))
    assert sum(int((~a.crowd).sum()) for a in annotations) == 929
    assert all(a.size_wh == image_size(a.image) for a in annotations)


def _darknet(folder: Path, extra: str = "") -> Path:
    write_png(folder / "images" / "a.png", (8, 8))
    (folder / "train.txt").write_text("images/a.png\n")
    (folder / "set.names").write_text("cat\ndog\n\n")
    path = folder / "set.data"
    path.write_text(f"classes=2\ntrain=train.txt\nnames=set.names\n{extra}")
    return path


def test_data_file_paths_from_its_own_folder(tmp_path: Path) -> None:
    dataset = open_data(_darknet(tmp_path, "backup=b\n"))
    assert dataset.names == ("cat", "dog") and dataset.options["backup"] == "b"
    assert dataset.splits == {"train": (tmp_path / "images" / "a.png",)}


def test_another_split_replaces_a_missing_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = open_data(_darknet(tmp_path), "val")
    assert list(dataset.splits) == ["val"] and "using 'train'" in caplog.text


@pytest.mark.parametrize("kind", ["my.data", "my.yaml"])
def test_the_files_of_other_splits_may_be_missing(kind: str, tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.png", (8, 8))
    (tmp_path / "valid.txt").write_text("images/a.png\n")
    (tmp_path / "my.names").write_text("cat\n")
    (tmp_path / "my.data").write_text("train=nowhere.txt\nvalid=valid.txt\nnames=my.names\n")
    (tmp_path / "my.yaml").write_text("train: nowhere\nval: images\nnames: [cat]\n")
    assert open_data(tmp_path / kind, "val").splits == {"val": (tmp_path / "images" / "a.png",)}
    for split in (None, "train"):
        with pytest.raises(InputError, match="train: no such file or folder"):
            open_data(tmp_path / kind, split)


def test_names_of_another_data_set(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.png", (8, 8))
    (tmp_path / "my.yaml").write_text("val: images\nnames: [cat, dog]\n")
    (tmp_path / "my.names").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match="has 2 names and --names 3, expected the same number"):
        open_data(tmp_path / "my.yaml", "val", names=tmp_path / "my.names")


def test_names_file_takes_over(tmp_path: Path) -> None:
    other = tmp_path / "other.names"
    path = _darknet(tmp_path)
    other.write_text("a\nb\nc\n")
    dataset = open_data(path, names=other)
    assert dataset.names == ("a", "b", "c") and dataset.findings[0].kind == "class count"


def test_folder_of_images(tmp_path: Path) -> None:
    write_png(tmp_path / "b" / "z.PNG", (2, 2))
    write_png(tmp_path / "a.png", (2, 2))
    dataset = open_data(tmp_path, "val")
    assert [path.name for path in dataset.splits["val"]] == ["a.png", "z.PNG"] and dataset.names == ()


# The files that labelling tools export, for an image in each split; L: a Darknet label, X: a Pascal VOC one.
EXPORTS = {
    "Roboflow, YOLO": (
        {"data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n"},
        ["train/images/a.png", "train/labels/a.txt", "valid/images/b.png", "valid/labels/b.txt"],
    ),
    "Roboflow, Darknet": (
        {"train/_darknet.labels": "cat\ndog\n", "valid/_darknet.labels": "cat\ndog\n"},
        ["train/a.png", "train/a.txt", "valid/b.png", "valid/b.txt"],
    ),
    "Roboflow, Pascal VOC": ({}, ["train/a.png", "train/a.xml", "valid/b.png", "valid/b.xml"]),
    "CVAT, YOLO": (
        {
            "obj.data": "classes=2\ntrain=data/train.txt\nnames=data/obj.names\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/a.png\n",
        },
        ["obj_train_data/a.png", "obj_train_data/a.txt"],
    ),
    "Label Studio, YOLO": ({"classes.txt": "cat\ndog\n"}, ["images/a.png", "labels/a.txt"]),
    "labelImg, YOLO": ({"classes.txt": "cat\ndog\n"}, ["a.png", "a.txt"]),
    "labelImg, Pascal VOC": ({}, ["a.png", "a.xml"]),
    "Kaggle": ({}, ["images/a.png", "annotations/a.xml"]),
    "Ultralytics without YAML": (
        {"classes.txt": "cat\ndog\n"},
        ["images/train/a.png", "labels/train/a.txt", "images/val/b.png", "labels/val/b.txt"],
    ),
}


@pytest.mark.parametrize("tool", EXPORTS)
@pytest.mark.parametrize("relative", [False, True])
def test_exports_of_labelling_tools(tool: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, files = EXPORTS[tool]
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>6</xmax><ymax>6</ymax></bndbox>"
    things = "".join(f"<object><name>{name}</name>{box}</object>" for name in ("dog", "cat"))
    xml = f"<annotation><size><width>8</width><height>8</height></size>{things}</annotation>"
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            write_png(path, (8, 8))
        else:
            path.write_text("1 .5 .5 .5 .5\n0 .5 .5 .5 .5\n" if path.suffix == ".txt" else xml)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    dataset = open_data(Path() if relative else tmp_path)
    assert dataset.names == ("cat", "dog")
    images = [name for name in files if name.endswith(".png")]
    splits = ["train", "val"] if len(images) == 2 else [next(iter(dataset.splits))]
    assert list(dataset.splits) == splits and splits[0] in ("all", "train")
    for split, image in zip(splits, images, strict=True):
        (labels,) = dataset.annotations(split)
        assert labels.image.resolve() == tmp_path / image
        assert labels.class_ids.tolist() == [1, 0] and not labels.findings


def test_images_outside_the_split_folders_are_reported(tmp_path: Path) -> None:
    for name in ("train/a.png", "val/b.png", "c.png"):
        write_png(tmp_path / name, (8, 8))
    (finding,) = open_data(tmp_path).findings
    assert f"1 of 3 images outside of {tmp_path / 'train'}, {tmp_path / 'val'}" in str(finding)


def test_hold_out(tmp_path: Path) -> None:
    for number in range(10):
        write_png(tmp_path / f"{number}.png", (8, 8))
    dataset = open_data(tmp_path)
    splits = hold_out(dataset, 0.3).splits
    assert len(splits["val"]) == 3 and sorted(splits["train"] + splits["val"]) == list(dataset.splits["all"])
    assert hold_out(dataset, 0.3).splits == splits
    with pytest.raises(InputError, match="expected no 'val'"):
        hold_out(hold_out(dataset, 0.3), 0.3)
    with pytest.raises(InputError, match="10 images are too few"):
        hold_out(dataset, 1.0)


def test_labels_without_names_are_not_dropped(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", (20, 10))
    (tmp_path / "in" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    with pytest.raises(InputError, match="has labels but no class names"):
        write_data(open_data(tmp_path / "in"), tmp_path / "out.data")
    assert not (tmp_path / "out.data").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.data", "names=a.data\n", "none of train"),
        ("a.data", "train=a.data\n", "no 'names'"),
        ("a.data", "train=nowhere.txt\nnames=a.data\n", "nowhere.txt"),
        ("a.data", "names=empty\ntrain=a.data\n", "empty"),
        ("a.csv", "", "unknown dataset format"),
        ("a.yaml", "train: nowhere\nnc: 1\n", "tried"),
    ],
)
def test_bad_data_set(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        open_data(tmp_path / name)


@pytest.mark.parametrize("kind", ["absent", "empty folder", "voc without images"])
def test_missing_data_set(kind: str, tmp_path: Path) -> None:
    if kind == "voc without images":
        (tmp_path / "Annotations").mkdir()
    with pytest.raises(InputError, match="no such dataset" if kind == "absent" else "no images"):
        open_data(tmp_path / "absent" if kind == "absent" else tmp_path)


def test_missing_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'test', expected one of train"):
        open_data(_darknet(tmp_path), "test")


def _coco_json(path: Path, file_name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = {"id": 1, "file_name": file_name, "width": 8, "height": 8}
    box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    path.write_text(json.dumps({"images": [image], "annotations": [box], "categories": [{"id": 7, "name": "cell"}]}))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
    ],
)
def test_folder_with_coco_files(train: str, val: str, tmp_path: Path) -> None:
    _coco_json(tmp_path / train, "a.jpg")
    assert [p.name for p in open_data(tmp_path, "train").splits["train"]] == ["a.jpg"]
    assert list(open_data(tmp_path, "val").splits) == ["val"]  # replaced by the training split
    _coco_json(tmp_path / val, "b.jpg")
    assert [p.name for p in open_data(tmp_path, "val").splits["val"]] == ["b.jpg"]
    both = pickle.loads(pickle.dumps(open_data(tmp_path)))
    assert {split: [p.name for p in images] for split, images in both.splits.items()} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
    }
    assert [len(label) for split in both.splits for label in both.annotations(split)] == [1, 1]


def test_coco_files_that_cannot_be_joined(tmp_path: Path) -> None:
    train, val = (tmp_path / split / "_annotations.coco.json" for split in ("train", "valid"))
    _coco_json(train, "a.jpg")
    _coco_json(val, "b.jpg")
    val.write_text(val.read_text().replace("cell", "body"))
    with pytest.raises(InputError, match=r"valid/_annotations.coco.json: the categories are not those of .*train"):
        open_data(tmp_path)
    _coco_json(tmp_path / "val" / "_annotations.coco.json", "b.jpg")
    with pytest.raises(InputError, match="several annotation files for a split"):
        open_data(tmp_path)


def test_coco128_folder() -> None:
    dataset = open_data(shared("datasets/coco128"), "val")
    assert len(dataset.splits["val"]) == 128 and len(dataset.names) == 80


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))}: cannot be read: Permission denied"):
        open_data(tmp_path)
