"""Errors and warnings when a head is planned, files named by heads, and fitting heads to other classes."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from models.catalog import SECTIONS
from models.heads.anchor_head import class_factors
from models.heads.anchors import AnchorSection
from models.heads.base import BoxSection
from models.heads.tree import read_tree
from tests.models.heads.build import build_head
from utils.errors import CfgError, InputError

REFUSED = [
    (
        "[yolo]\nclasses=80\n",
        "<cfg>:5: [yolo] reads 8 channels, expected filters=85 in the layer before it for 1 anchors",
    ),
    ("[yolo]\nclasses=80\nnum=9\nmask=0,1,2\n", "expected filters=255 in the layer before it for 3 anchors (mask)"),
    ("[yolo]\nclasses=3\nnum=3\nmask=3\n", "<cfg>:8: [yolo] mask: there is no anchor 3, expected 0 to 2"),
    ("[yolo]\nclasses=3\nnum=3\nmask=-1\n", "mask: there is no anchor -1"),
    ("[yolo]\nclasses=3\nnum=3\nmask=1,1\n", "mask: names an anchor twice"),
    ("[yolo]\nclasses=3\nanchors=10,-5\n", "anchors: -5 is out of range"),
    ("[yolo]\nclasses=3\nanchors=10,ten\n", "anchors: cannot read 'ten', expected a number"),
    ("[yolo]\nclasses=0\n", "classes: 0 is out of range, expected at least 1"),
    ("[yolo]\nclasses=3\nnum=0\n", "num: 0 is out of range"),
    (
        "[yolo]\nclasses=3\niou_loss=siou\n",
        "iou_loss: unknown value 'siou', expected one of mse, iou, giou, diou, ciou",
    ),
    (
        "[yolo]\nclasses=3\ncounters_per_class=1,2\n",
        "counters_per_class: has 2 values, expected one for each of 3 classes",
    ),
    ("[Gaussian_yolo]\nclasses=3\n", "expected filters=12 in the layer before it for 1 anchors (mask) and classes=3"),
    ("[Gaussian_yolo]\nclasses=3\nyolo_point=corner\n", "yolo_point: unknown value 'corner'"),
    ("[region]\nclasses=4\n", "reads 8 channels, expected filters=9 in the layer before it for num=1 and classes=4"),
    ("[region]\nclasses=3\ncoords=5\n", "coords: 5 is out of range, expected 4"),
    ("[region]\nclasses=3\ntree=none.tree\n", "none.tree not found, neither here nor in"),
    ("[detection]\nclasses=3\ncoords=4\n", "reads 96 values, expected output=392 in the layer before it for side=7"),
    ("[detection]\nclasses=3\n", "reads 96 values, expected output=245 in the layer before it for side=7"),
    (
        "[detection]\nclasses=3\ncoords=4\nforced=1\n",
        "forced: assigns small objects to box 1, expected num of at least 2",
    ),
    ("[softmax]\ngroups=5\n", "groups=5 does not divide 96 values"),
    ("[softmax]\ntemperature=0\n", "temperature: 0 is out of range"),
    ("[cost]\ntype=l7\n", "type: unknown value 'l7', expected one of sse, masked, smooth"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(CfgError if "none.tree" not in text else InputError) as error:
        build_head(text, 8)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("anchors", "effect", "last"),
    [("10,20", "the missing ones are 0.5", (0.5, 0.5)), ("1,2,3,4,5,6", "the last ones are not used", (3.0, 4.0))],
)
def test_anchor_lists_of_another_length_give_a_warning(
    anchors: str, effect: str, last: tuple[float, float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        head = build_head(f"[yolo]\nclasses=3\nnum=2\nanchors={anchors}\n", 16)
    assert effect in caplog.text
    section = head.section
    assert isinstance(section, AnchorSection) and section.anchor_sizes[-1] == last


def test_mask_may_use_anchors_beyond_num_that_are_given() -> None:
    section = build_head("[yolo]\nclasses=3\nnum=1\nmask=2\nanchors=1,2,3,4,5,6\n", 8).section
    assert isinstance(section, AnchorSection) and section.anchor_sizes == ((1, 2), (3, 4), (5, 6))


BOXES = [section for section in SECTIONS if issubclass(section, BoxSection)]


@pytest.mark.parametrize("section", BOXES, ids=lambda section: section.names[0])
def test_filters_follow_the_classes(section: type[BoxSection]) -> None:
    extra: dict[str, Any] = {"coords": 4, "num": 2, "side": 3}
    known = {item.name for item in dataclasses.fields(section)}
    few, more = (section(classes=count, **{k: v for k, v in extra.items() if k in known}) for count in (1, 5))
    per_class = {"yolo": 2, "Gaussian_yolo": 2, "region": 2, "detection": 9}[section.names[0]]
    assert more.filters - few.filters == 4 * per_class


def test_class_factors() -> None:
    assert class_factors((10, 5, 0), 4.0) == [1.0, 2.0, 4.0]
    assert class_factors(None, 4.0) is None


def test_class_map_is_found_next_to_the_cfg(tmp_path: Path) -> None:
    folder = tmp_path / "cfg"
    folder.mkdir()
    (tmp_path / "swap.map").write_text("1\n0\n")
    text = "[yolo]\nclasses=2\nanchors=16,16\n"
    mapped = build_head(f"{text}map=swap.map\n", 7, path=str(folder / "net.cfg"))
    x = torch.randn(1, 7, 3, 4)
    truth = torch.tensor([[[0.4, 0.5, 0.3, 0.3, 0.0]]])
    other = truth.clone()
    other[..., 4] = 1
    assert mapped.loss(x, truth, (64, 48), 0).cost == build_head(text, 7).loss(x, other, (64, 48), 0).cost


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\nx\n", "2: cannot read 'x', expected a class number"),
        ("0\n7\n", "maps to class 7, expected 0 to classes - 1 = 1"),
    ],
)
def test_bad_class_map(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.map").write_text(text)
    head = build_head("[yolo]\nclasses=2\nmap=bad.map\n", 7, path=str(tmp_path / "net.cfg"))
    with pytest.raises(InputError, match=message):
        head.loss(torch.zeros(1, 7, 3, 4), torch.zeros(1, 1, 5), (64, 48), 0)


def test_tree_levels_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.tree"
    path.write_text("a -1\nb\na1 0\na2 0\nb1 1\na11 2\n")
    tree = read_tree(path)
    assert tree.parents == (-1, -1, 0, 0, 1, 2)
    assert tree.groups == (0, 0, 1, 1, 2, 3)
    assert tree.levels == ((2, 3, 4), (5,))
    values = torch.tensor([0.5, 0.5, 0.25, 0.75, 1.0, 0.5])
    assert tree.absolute(values).tolist() == [0.5, 0.5, 0.125, 0.375, 0.5, 0.0625]
    on_path, of_groups = tree.path(torch.tensor([5, 1]))
    assert on_path.tolist() == [[True, False, True, False, False, True], [False, True, False, False, False, False]]
    assert of_groups.tolist() == [[True, True, True, True, False, True], [True, True, False, False, False, False]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a -1\nb 2\n", "2: parent 2, expected -1 or a line before"),
        ("a x\n", "1: cannot read"),
        ("", "is empty"),
        ("\na\n", "1: cannot read"),
    ],
)
def test_bad_tree(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.tree").write_text(text)
    with pytest.raises(InputError, match=message):
        read_tree(tmp_path / "bad.tree")


def test_tree_must_have_the_classes_of_the_head(tmp_path: Path) -> None:
    (tmp_path / "two.tree").write_text("a\nb\n")
    with pytest.raises(CfgError, match="tree: has 2 classes, expected classes=3"):
        build_head("[region]\nclasses=3\ntree=two.tree\n", 8, path=str(tmp_path / "net.cfg"))


def test_tree_loss_changes_the_groups_on_the_path_only(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("a -1\nb -1\na1 0\na2 0\nb1 1\nb2 1\n")
    text = "[region]\nclasses=6\nanchors=1,1\ntree=a.tree\n"
    head = build_head(text, 11, path=str(tmp_path / "net.cfg"))
    x = torch.randn(1, 11, 3, 4).requires_grad_()
    truth = torch.tensor([[[0.4, 0.5, 0.3, 0.3, 3.0]]])
    (gradient,) = torch.autograd.grad(head.loss(x, truth, (64, 48), 10**6).value, x)
    found = head(x)[0, 5:, 1, 1]
    wanted = torch.tensor([1.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(-gradient[0, 5:9, 1, 1], (wanted - found[:4]).detach())
    assert not gradient[0, 9:].any()


EXPORTED = [
    ("[yolo]\nclasses=3\nanchors=10,20\n", 8),
    ("[Gaussian_yolo]\nclasses=3\n", 12),
    ("[region]\nclasses=3\nsoftmax=1\n", 8),
]


@pytest.mark.parametrize(("text", "channels"), EXPORTED)
def test_forward_and_dense_can_be_exported(text: str, channels: int) -> None:
    head = build_head(text, channels)

    class Dense(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(head.dense(head(x), (64, 48)))

    x = torch.randn(1, channels, 3, 4)
    exported = torch.export.export(Dense().eval(), (x,)).module()
    for found, expected in zip(exported(x), Dense()(x), strict=True):
        torch.testing.assert_close(found, expected)


def test_published_oddities_run_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The original accepts all three: an anchor of size 0, an unknown nms_kind, and [detection] with coords other than 4."""
    with caplog.at_level(logging.WARNING):
        yolo = build_head("[yolo]\nclasses=3\nnms_kind=soft\nnum=2\nanchors=10,0, 10,20\n", 16)
        detection = build_head("[detection]\nclasses=3\nside=2\ncoords=2\n", 24, 1, 1)
    for text in (
        "anchors: has a size of 0",
        "nms_kind: unknown value 'soft', default is used",
        "coords: 2 instead of 4",
    ):
        assert text in caplog.text
    assert yolo.section.suppression() == ("default", 0.6)
    x = torch.randn(1, 16, 3, 4, requires_grad=True)
    assert yolo.dense(yolo(x), (64, 48)).cxcywh_rel.isfinite().all()
    loss = yolo.loss(x, torch.tensor([[[0.4, 0.5, 0.3, 0.3, 0.0]]]), (64, 48), 0)
    assert torch.autograd.grad(loss.value, x)[0].isfinite().all()
    vector = torch.randn(1, 24, 1, 1)
    assert torch.equal(detection(vector), vector)
    for refused in (
        lambda: detection.decode(vector, 0.1, (64, 48)),
        lambda: detection.loss(vector, torch.zeros(1, 1, 5), (64, 48), 0),
    ):
        with pytest.raises(CfgError, match="coords: is 2, boxes need 4"):
            refused()
