from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.annotations import MALFORMED
from data.doctor import CONSEQUENCES, check_dataset, full_text, report
from data.sources import open_data
from evaluation.plots import plot_labels
from tests.data.sets import small_set, write_png
from tests.data.test_images import HEIGHT, WIDTH, encode, with_exif
from tests.paths import shared
from utils.errors import InputError

GOOD = "0 .5 .5 .25 .25\n"


def _set(folder: Path, labels: str | None, names: str = "cat\ndog\n") -> Path:
    image = write_png(folder / "a.png", (100, 50))
    if labels is not None:
        image.with_suffix(".txt").write_text(labels)
    (folder / "list.txt").write_text(f"{image}\n")
    (folder / "set.names").write_text(names)
    path = folder / "set.data"
    path.write_text("train=list.txt\nnames=set.names\n")
    return path


CASES = {
    # content of the label file: (kind of finding, line, number of usable labels)
    "0 .5 .5 .25 .25\n1 .1 .1 .2 .2\n": (None, None, 2),
    GOOD + "1 .5 .5 .25\n": ("malformed label", 2, 1),
    GOOD + "2 .5 .5 .25 .25\n": ("class beyond names", 2, 1),
    GOOD + "0 .5 .5 0 .25\n": ("degenerate box", 2, 2),
    GOOD + "0 .5 .5 .25 -.25\n": ("degenerate box", 2, 2),
    GOOD + "0 .95 .5 .25 .25\n": ("out of range", 2, 2),
    GOOD + "0 .5 .5 1.2 .25\n": ("out of range", 2, 2),
    GOOD + "0 50 25 10 10\n": ("out of range", 2, 2),
    GOOD + "0 .99 .5 .03 .25\n": (None, None, 2),  # half a pixel beyond the edge
    GOOD + "\n" + GOOD: ("duplicate label", 3, 2),
}


@pytest.mark.parametrize("labels", CASES)
def test_labels(labels: str, tmp_path: Path) -> None:
    kind, line, usable = CASES[labels]
    found = check_dataset(open_data(_set(tmp_path, labels)), "train")
    assert found.labels == usable
    assert found.counts == ({kind: 1} if kind else {})
    if kind:
        assert f"{tmp_path / 'a.txt'}:{line}: " in report(found)


def test_no_label_file_is_background(tmp_path: Path) -> None:
    found = check_dataset(open_data(_set(tmp_path, None)), "train")
    assert found.counts == {"labels missing": 1} and (found.background, found.labels) == (1, 0)


def test_empty_label_file_is_background_without_a_finding(tmp_path: Path) -> None:
    found = check_dataset(open_data(_set(tmp_path, "")), "train")
    assert found.counts == {} and found.background == 1


def test_an_image_with_an_impossible_file_name(tmp_path: Path) -> None:
    path = _set(tmp_path, GOOD)
    (tmp_path / "list.txt").write_text(f"{'a' * 300}.png\n")
    assert check_dataset(open_data(path), "train").counts["image missing"] == 1


@pytest.mark.parametrize(
    ("content", "kind"), [(None, "image missing"), (b"", "image unreadable"), (b"\xff\xd8\xff", "image unreadable")]
)
def test_images(content: bytes | None, kind: str, tmp_path: Path) -> None:
    path = _set(tmp_path, GOOD)
    image = tmp_path / "a.png"
    image.unlink() if content is None else image.write_bytes(content)
    found = check_dataset(open_data(path), "train")
    assert found.counts == {kind: 1} and not found.readable.any() and len(found.sizes_wh) == 0
    assert str(image) in report(found)


def test_duplicate_image_and_class_count(tmp_path: Path) -> None:
    path = _set(tmp_path, GOOD)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.png'}\n" * 3)
    path.write_text(path.read_text() + "classes=7\n")
    assert check_dataset(open_data(path), "train").counts == {"duplicate image": 1, "class count": 1}


def test_wrong_image_size_in_the_labels(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    write_png(tmp_path / "images" / "second one.png", (77, 33))
    found = check_dataset(dataset, "val")
    assert found.counts == {"size differs": 1} and "is 77x33" in report(found)


def test_empty_split(tmp_path: Path) -> None:
    path = _set(tmp_path, GOOD)
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(InputError, match="no images in split 'train'"):
        check_dataset(open_data(path), "train")


def test_bccd_has_two_degenerate_boxes() -> None:
    dataset = open_data(shared("datasets/bccd"))
    degenerate = []
    for split in ("trainval", "test"):
        found = check_dataset(dataset, split)
        degenerate += [finding for finding in found.findings if finding.kind == "degenerate box"]
        assert found.readable.all() and found.background == 0
    assert sorted(Path(finding.place).stem for finding in degenerate) == ["BloodImage_00338", "BloodImage_00343"]
    assert all(finding.line for finding in degenerate)


def test_every_kind_has_a_consequence_and_a_line(tmp_path: Path) -> None:
    found = check_dataset(open_data(_set(tmp_path, "x\n" * 5)), "train")
    assert report(found).count("a.txt:") == 3 and "and 2 more" in report(found)
    assert full_text(found).count("malformed label\t") == 5
    assert set(found.counts) <= set(CONSEQUENCES)


@pytest.mark.parametrize("labels", [GOOD, ""])
def test_image_of_the_labels(labels: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = check_dataset(open_data(_set(tmp_path, labels)), "train")
    target = tmp_path / "labels.png"
    plot_labels(target, found)
    assert target.stat().st_size > 5000
    assert np.array_equal(found.class_counts, [1 if labels else 0, 0])


def test_an_image_with_only_malformed_labels_is_not_background(tmp_path: Path) -> None:
    found = check_dataset(open_data(_set(tmp_path, "one two\n0 .5\n")), "train")
    assert (found.counts, found.background, found.labels) == ({MALFORMED: 2}, 0, 0)


def test_images_that_are_turned_upright_are_counted(tmp_path: Path) -> None:
    path = _set(tmp_path, GOOD)
    (tmp_path / "a.png").write_bytes(with_exif(encode("jpg"), 6))
    found = check_dataset(open_data(path), "train")
    assert found.turned == 1 and found.sizes_wh.tolist() == [[HEIGHT, WIDTH]]
    assert "1 images are turned upright" in report(found)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda image: image.unlink(),
            "none of the 1 images can be read in split 'train'.*a.png: image cannot be read",
        ),
        (lambda image: image.with_suffix(".txt").unlink(), "no usable labels in split 'train'.*no label file; tried"),
        (lambda image: image.with_suffix(".txt").write_text("x"), r"no usable labels.*a\.txt:1: found 1 values"),
    ],
)
def test_required_labels_name_what_is_missing_first(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = _set(tmp_path, GOOD)
    spoil(tmp_path / "a.png")
    with pytest.raises(InputError, match=message):
        check_dataset(open_data(path), "train").require_labels(path)
