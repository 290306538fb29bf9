from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.annotations import Annotation, Dataset
from data.formats import coco, darknet, ultralytics, voc
from data.formats.coco import split_of
from data.image import read_image
from data.sources import open_data
from data.writing import write_data
from tests.data.sets import small_set, write_png
from utils.errors import InputError

TARGETS = {"darknet": "d/set.data", "ultralytics": "u/set.yaml", "voc": "v/set", "coco": "c/val.json"}
EXPRESSES = {
    "darknet": {"difficult"},
    "ultralytics": set(),
    "voc": {"difficult"},
    "coco": {"crowd", "areas_px", "image_id"},
}


def _write(dataset: Dataset, kind: str, folder: Path) -> Dataset:
    """Write the data set, whose only split is "val", in another format and open it again."""
    target = folder / TARGETS[kind]
    write_data(dataset, target)
    return open_data(target, "val")


def _same(a: Annotation, b: Annotation, fields: set[str]) -> None:
    order_a, order_b = (np.lexsort((x.cxcywh_rel[:, 0], x.class_ids)) for x in (a, b))
    np.testing.assert_array_equal(a.class_ids[order_a], b.class_ids[order_b])
    np.testing.assert_allclose(a.cxcywh_rel[order_a], b.cxcywh_rel[order_b], rtol=0, atol=1e-11)
    for name in fields - {"image_id"}:
        np.testing.assert_array_equal(getattr(a, name)[order_a], getattr(b, name)[order_b])
    if "image_id" in fields:
        assert a.image_id == b.image_id


@pytest.mark.parametrize("there", EXPRESSES)
@pytest.mark.parametrize("here", EXPRESSES)
def test_conversion_there_and_back(here: str, there: str, tmp_path: Path) -> None:
    fields = EXPRESSES[here] & EXPRESSES[there]
    original = small_set(tmp_path, crowd="crowd" in fields, difficult="difficult" in fields)
    original = replace(original, splits={"val": original.splits["val"]})
    start = _write(original, here, tmp_path / "1")
    away = _write(start, there, tmp_path / "2")
    back = _write(away, here, tmp_path / "3")
    assert back.names == away.names == start.names == original.names
    for source, ours, returned in zip(*(x.annotations("val") for x in (original, start, back)), strict=True):
        assert ours.image.name == returned.image.name == source.image.name
        _same(source, ours, fields)
        _same(ours, returned, fields)


@pytest.mark.parametrize("kind", ["darknet", "ultralytics", "voc"])
def test_splits_are_kept(kind: str, tmp_path: Path) -> None:
    original = small_set(tmp_path, crowd=False, difficult=False)
    write_data(original, tmp_path / TARGETS[kind])
    again = open_data(tmp_path / TARGETS[kind])
    for split, images in original.splits.items():
        assert [image.name for image in again.splits[split]] == [image.name for image in images]
        for ours, returned in zip(original.annotations(split), again.annotations(split), strict=True):
            _same(ours, returned, set())


def test_lost_information_is_counted(tmp_path: Path) -> None:
    written = write_data(small_set(tmp_path), tmp_path / "x" / "set.yaml")
    assert (written.labels, written.images) == (7 - 4, 4)
    assert written.not_converted == {"crowd boxes, left out": 2, "difficult boxes, left out": 2}


def test_existing_target_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "set.json"
    target.write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        write_data(small_set(tmp_path), target)
    assert target.read_text() == "mine"
    write_data(small_set(tmp_path), tmp_path / "several.json")
    with pytest.raises(InputError, match=r"several_train\.json: already exists"):
        write_data(small_set(tmp_path), tmp_path / "several.json")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("/d/a.jpg", ["/d/a.txt"]),
        (".", ["..txt"]),
        ("/", ["/.txt"]),
        ("/d/images/a.jpg", ["/d/images/a.txt", "/d/labels/a.txt"]),
        ("/d/images/val2017/a.jpg", ["/d/images/val2017/a.txt", "/d/labels/val2017/a.txt"]),
        ("images/val/a.jpg", ["images/val/a.txt", "labels/val/a.txt"]),
        ("/v/JPEGImages/a.JPEG", ["/v/JPEGImages/a.txt", "/v/labels/a.txt"]),
        ("/images/x/images/image.1.png", ["/images/x/images/image.1.txt", "/images/x/labels/image.1.txt"]),
        (
            "/images/JPEGImages/a.png",
            ["/images/JPEGImages/a.txt", "/images/labels/a.txt", "/labels/JPEGImages/a.txt"],
        ),
    ],
)
def test_label_paths(image: str, expected: list[str]) -> None:
    assert [path.as_posix() for path in darknet.label_candidates(Path(image))] == expected


def test_missing_labels_name_every_path_tried(tmp_path: Path) -> None:
    image = tmp_path / "images" / "a.png"
    (finding,) = darknet.TextLabels()(image).findings
    assert finding.kind == "labels missing"
    assert str(tmp_path / "images" / "a.txt") in finding.text
    assert str(tmp_path / "labels" / "a.txt") in finding.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .1", "found 4 values"),
        ("0 .1 .1 .2 .1 .2 two", "polygon: cannot read 'two'"),
        ("0 .5 .5 .1 .1 90", "confidence: 90 is out of range"),
        ("0 .5 .5 .1 .1 .9 1 1", "found 8 values"),
        ("zero .5 .5 .1 .1", "class id: cannot read 'zero'"),
        ("-1 .5 .5 .1 .1", "class id: cannot read '-1'"),
        ("1.5 .5 .5 .1 .1", "class id: cannot read '1.5'"),
        (f"{10**18} .5 .5 .1 .1", "class id: 1000000000000000000 is too large"),
        (f"{'9' * 5000} .5 .5 .1 .1", "class id: 99999"),
        (f"-{'9' * 5000} .5 .5 .1 .1", "class id: cannot read '-9999"),
        ("0 half .5 .1 .1", "cx: cannot read 'half'"),
        ("0 .5 nan .1 .1", "cy: cannot read 'nan'"),
        ("0 .5 .5 1e999 .1", "w: cannot read '1e999'"),
        ("0 .5 .5 .1 1_0", "h: cannot read '1_0'"),
    ],
)
def test_bad_line_is_skipped(line: str, message: str) -> None:
    rows = darknet.parse_labels(f"0 .1 .2 .3 .4\n\n{line}\r\n1 .5 .6 .7 .8", "a.txt")
    assert (rows.class_ids, rows.lines) == ([0, 1], [1, 4])
    (finding,) = rows.findings
    assert str(finding).startswith("a.txt:3: ") and message in finding.text


def test_first_value_in_a_data_file_counts() -> None:
    text = "# a comment\nclasses = 2\nclasses=3\n\n; another\nnames = my names.txt\n"
    assert darknet.parse_data(text, "a.data") == {"classes": "2", "names": "my names.txt"}


def test_data_file_names_the_bad_line() -> None:
    with pytest.raises(InputError, match=r"a\.data:2: cannot read 'train'"):
        darknet.parse_data("classes=2\ntrain\n", "a.data")


def test_byte_order_marks_are_removed(tmp_path: Path) -> None:
    texts = {"my.data": "train=list.txt\nnames=my.names\n", "my.names": "cat\n", "list.txt": "a.png\n"}
    write_png(tmp_path / "a.png", (4, 4))
    for name, text in (texts | {"a.txt": "0 .5 .5 .1 .1\n"}).items():
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    dataset = open_data(tmp_path / "my.data")
    assert dataset.names == ("cat",) and dataset.splits == {"train": (tmp_path / "a.png",)}
    annotation = dataset.read(tmp_path / "a.png")
    assert annotation.class_ids.tolist() == [0] and not annotation.findings


def test_a_polygon_becomes_its_bounding_box() -> None:
    rows = darknet.parse_labels("1 .1 .1 .3 .1 .3 .4 .1 .2\n", "a.txt")
    assert rows.class_ids == [1] and rows.boxes[0] == pytest.approx([0.2, 0.25, 0.2, 0.3])
    (finding,) = rows.findings
    assert str(finding) == "a.txt:1: polygon of 4 corners, expected class cx cy w h"


def test_list_entries_from_the_list_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "sub" / "a.png", (4, 4))
    list_file = tmp_path / "sub" / "list.txt"
    list_file.write_text("a.png\nb.png\n")
    assert darknet.read_list(list_file) == (tmp_path / "sub" / "a.png", tmp_path / "sub" / "b.png")
    monkeypatch.chdir(tmp_path / "sub")
    assert darknet.read_list(list_file) == (Path("a.png"), Path("b.png"))


VOC = "<annotation><size><width>100</width><height>50</height></size>\n{}\n</annotation>"
BOX = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>11</xmax><ymax>11</ymax></bndbox>"


def _voc(objects: str) -> Annotation:
    return voc.parse_annotation(VOC.format(objects).encode(), "a.xml", Path("a.jpg"), {"cat": 0})


def test_voc_edges_follow_the_original_script() -> None:
    found = _voc("<object><name>cat</name><difficult>1</difficult>" + BOX.format(1) + "</object>")
    np.testing.assert_allclose(found.cxcywh_rel, [[5 / 100, 5 / 50, 10 / 100, 10 / 50]])
    assert found.difficult.tolist() == [True] and found.lines.tolist() == [2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<name>dog</name>" + BOX.format(1), "class 'dog' is not among the 1 names"),
        ("<name>cat</name>" + BOX.format("one"), "xmin: cannot read 'one'"),
        ("<name>cat</name>", "xmin: cannot read ''"),
        ("<name>cat</name>" + BOX.format("1e308"), "xmin: cannot read '1e308'"),
    ],
)
def test_voc_bad_object_is_skipped(body: str, message: str) -> None:
    good = "<object><name>cat</name>" + BOX.format(1) + "</object>"
    found = _voc(f"<object>{body}</object>\n{good}")
    assert len(found) == 1
    (finding,) = found.findings
    assert finding.line == 2 and message in finding.text


@pytest.mark.parametrize(
    "text",
    [
        *("", "<annotation>", "no xml", "<annotation><size/></annotation>"),
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>',
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
        *(
            f'<?xml version="1.0" encoding="{codec}"?><annotation/>'
            for codec in ("nope", "rot13", "utf-7", "big5", "idna")
        ),
        f"<annotation><size><width>{'9' * 5000}</width><height>1</height></size></annotation>",
        "<annotation><size><width>0</width><height>1</height></size></annotation>",
        "<annotation><size><width>٣</width><height>1</height></size></annotation>",
    ],
)
def test_voc_bad_file_is_a_finding(text: str) -> None:
    found = voc.parse_annotation(text.encode(), "a.xml", Path("a.jpg"), {})
    assert len(found) == 0 and [f.kind for f in found.findings] == ["malformed label"]


def test_voc_long_texts_take_linear_time() -> None:
    start = time.process_time()
    assert len(_voc("\n" * 500_000 + "&lt;" * 100_000)) == 0
    assert time.process_time() - start < 5


IMAGE = {"id": 1, "file_name": "a.jpg", "width": 10, "height": 20}


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"image_id": 2, "category_id": 5, "bbox": [0, 0, 1, 1]}, "image_id 2"),
        ({"image_id": 1, "category_id": 6, "bbox": [0, 0, 1, 1]}, "category_id 6"),
        ({"image_id": 1, "category_id": 5, "bbox": [0, 0, 1]}, "bbox: cannot read"),
        ({"image_id": 1, "category_id": 5, "bbox": [0, 0, 1, float("nan")]}, "bbox: cannot read"),
        ({"image_id": 1, "category_id": 5, "bbox": [0, 0, 1, 10**400]}, "bbox: cannot read"),
        ({"image_id": 1, "category_id": 5, "bbox": [0, 0, 1, 1e308]}, "bbox: cannot read"),
        ({"image_id": 2**70, "category_id": 5, "bbox": [0, 0, 1, 1]}, "image_id 1180591620717411303424"),
        ({"image_id": 1, "category_id": 5}, "bbox: cannot read None"),
        ([], "is not an object"),
    ],
)
def test_coco_bad_annotation_is_skipped(box: object, message: str) -> None:
    good = {"image_id": 1, "category_id": 5, "bbox": [1, 2, 4, 8]}
    content = {"images": [IMAGE], "annotations": [box, good], "categories": [{"id": 5, "name": "cat"}]}
    (annotation,), names, ids, findings = coco.parse_coco(content, "a.json", Path("d"))
    assert (names, ids, annotation.image) == (("cat",), (5,), Path("d/a.jpg"))
    np.testing.assert_allclose(annotation.cxcywh_rel, [[0.3, 0.3, 0.4, 0.4]])
    (finding,) = findings
    assert finding.text.startswith("annotations[0]") and message in finding.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "is a JSON list"),
        ('{"images": []}', "no list 'categories'"),
        ("[" * 10**5, "not valid JSON"),
        ("9" * 5000, "not valid JSON"),
    ],
)
def test_coco_bad_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        coco.read_json(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", r"a\.yaml:"),
        ("- 1", "expected keys"),
        ("names: [a]", "none of train, val, test"),
        ("train: x\nnames: {0: a, 2: b}", "without gaps"),
        ("train: x\nnames: [a]\nnc: 2", "nc is 2, but there are 1 names"),
        ("train: x", "no names"),
        ("train: x\nnames: {0: a, b: c}", "without gaps"),
        ("train: x\nnc: 1000000000", "nc is 1000000000, expected at most 100,000 classes"),
    ],
)
def test_yaml_bad_file(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ultralytics.parse_yaml(text, "a.yaml")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("x/instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("x/myTest.json", "test"),
        ("x/my-TEST.json", "test"),
        ("latest/contest.json", None),
    ],
)
def test_coco_split_is_a_word_of_the_name(path: str, split: str | None) -> None:
    assert split_of(Path(path)) == split


def test_coco_image_without_a_name_is_a_finding(tmp_path: Path) -> None:
    content = {"images": [{"id": 1}, {"id": 2, "file_name": "a.png", "width": 4, "height": 4}], "annotations": []}
    (tmp_path / "c.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "cat"}]}))
    dataset = open_data(tmp_path / "c.json")
    assert list(dataset.splits.values()) == [(tmp_path / "a.png",)]
    assert [finding.kind for finding in dataset.findings] == ["malformed image entry"]


def test_yaml_number_of_classes_alone() -> None:
    assert ultralytics.parse_yaml("val: x\nnc: 2", "a.yaml") == (("class0", "class1"), {"val": ("x",)}, "")


def test_coco_text_is_stable(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    pairs = [(each, each.size_wh) for each in dataset.annotations("train") if each.size_wh]
    content = json.loads(coco.format_coco(pairs, dataset.names, dataset.category_ids, tmp_path))
    assert [image["id"] for image in content["images"]] == [7, 11]
    assert content["annotations"][2]["bbox"] == [10.25, 3, 9.75, 4.5]
    assert content["annotations"][1]["iscrowd"] == 1 and content["annotations"][0]["area"] == 700.5
    assert {category["id"] for category in content["categories"]} == {4, 9, 90}


def test_coco_without_annotations_lists_its_images(tmp_path: Path) -> None:
    """Like image_info_test-dev2017.json, which has only images and categories."""
    images = [{"id": 5, "file_name": "5.jpg", "width": 8, "height": 9}]
    (tmp_path / "info.json").write_text(json.dumps({"images": images, "categories": [{"id": 3, "name": "car"}]}))
    dataset = open_data(tmp_path / "info.json", "val")
    (labels,) = dataset.annotations("val")
    assert (labels.image, labels.image_id, len(labels)) == (tmp_path / "5.jpg", 5, 0)
    assert dataset.names == ("car",) and not dataset.findings and not dataset.labelled


def test_number_of_names_differs_from_coco_categories(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "5.jpg", "width": 8, "height": 9}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "categories": [{"id": 3, "name": "car"}]}))
    (tmp_path / "my.names").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="1 categories and 2 names, expected the same number"):
        open_data(tmp_path / "a.json", names=tmp_path / "my.names")


def test_the_confidence_of_saved_detections_is_ignored() -> None:
    rows = darknet.parse_labels("3 .5 .25 .2 .1 0.875\n3 .5 .25 .2 .1 high\n", "a.txt")
    assert (rows.class_ids, rows.boxes, rows.lines) == ([3], [[0.5, 0.25, 0.2, 0.1]], [1])
    assert "confidence: cannot read 'high'" in rows.findings[0].text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_text_files_from_windows_programs_are_read(encoding: str, tmp_path: Path) -> None:
    image = write_png(tmp_path / "bær.png", (8, 8))
    image.with_suffix(".txt").write_text("0 .5 .5 .25 .25\n", encoding)
    (tmp_path / "list.txt").write_text(f"{image}\n", encoding)
    (tmp_path / "my.names").write_text("bær\n", encoding)
    dataset = open_data(tmp_path / "list.txt", names=tmp_path / "my.names")
    (labels,) = dataset.annotations("all")
    assert dataset.names == ("bær",) and labels.image == image and labels.class_ids.tolist() == [0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\nbær\n".encode("latin-1"), r"my\.names:2: byte 0xe6 is not UTF-8"),
        ("cat\n".encode("utf-16-le"), "contains zero bytes"),
    ],
)
def test_names_in_other_encodings_are_rejected(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.names").write_bytes(content)
    with pytest.raises(InputError, match=message):
        darknet.read_names(tmp_path / "my.names")


def test_backslashes_of_windows_separate_folders(tmp_path: Path) -> None:
    (tmp_path / "win" / "img").mkdir(parents=True)
    images = [write_png(tmp_path / "win" / "img" / f"{letter} 1.png", (8, 8)) for letter in "ab"]
    (tmp_path / "win" / "train.txt").write_bytes(b"img\\a 1.png\r\nimg\\b 1.png\r\n")
    (tmp_path / "win" / "my.names").write_bytes(b"red box\r\n")
    (tmp_path / "my.data").write_bytes(b"train = win\\train.txt\r\nnames = win\\my.names\r\n")
    dataset = open_data(tmp_path / "my.data")
    assert dataset.splits == {"train": tuple(images)} and dataset.names == ("red box",)


def test_a_list_may_name_files_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xe6r.png")
    try:
        image = write_png(tmp_path / name, (8, 8))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "list.txt").write_bytes(os.fsencode(image))
    assert darknet.read_list(tmp_path / "list.txt") == (image,)


@pytest.mark.parametrize("entry", ["a" * 300, "9" * 5000 + ".jpg", "/", ".", "//", "\udcff" * 200])
def test_impossible_file_names_in_a_list(entry: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(f"{entry}\n".encode("utf-8", "surrogateescape"))
    (image,) = darknet.read_list(tmp_path / "list.txt")
    (finding,) = darknet.TextLabels()(image).findings
    assert finding.kind == "labels missing"


@pytest.mark.parametrize("text", ["train = {0}\nnames = a.names", "train = list.txt\nnames = {0}", "labels = {0}"])
def test_impossible_file_names_in_a_data_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text(text.format("a" * 300))
    (tmp_path / "a.names").write_text("cat\n")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(InputError, match=r"a\.data: |a{300}: "):
        open_data(tmp_path / "a.data")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_an_endless_device_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/dev/zero: names file cannot be read: is a device"):
        darknet.read_names("/dev/zero")
    with pytest.raises(InputError, match="/dev/zero: image cannot be read: is a device"):
        read_image("/dev/zero")
