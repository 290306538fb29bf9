"""Fitting classes and anchors: the fitted cfg can be planned, and only what must change has changed."""

from __future__ import annotations

import difflib

import pytest

from models.fit import anchor_heads, anchors_in_pixels, classes_of, fit_anchors, fit_classes
from models.plan import Plan, make_plan, read_plan
from tests.paths import REFERENCE, REPOSITORY
from utils import cfg
from utils.errors import InputError

NET = "[net]\nwidth=64\nheight=64\nchannels=3\n"
CONV = "[convolutional]\nfilters={filters}\nsize=1\nactivation=linear\n"
YOLO = "[yolo]\nmask={mask}\nanchors=4,5, 10,12, 20,24, 40,30\nclasses=2\nnum=4\n"


def plan(text: str) -> Plan:
    return make_plan(cfg.parse(text, "test.cfg"))


def changed(before: Plan, after: cfg.Cfg) -> list[str]:
    lines = difflib.ndiff(before.cfg.text.splitlines(), after.text.splitlines())
    return [line[2:] for line in lines if line.startswith("+ ")]


def test_classes_and_filters_of_every_head_change_and_nothing_else() -> None:
    two = NET + CONV.format(filters=14) + YOLO.format(mask="0,1") + "[route]\nlayers=-2\n"
    before = plan(two + CONV.format(filters=14) + YOLO.format(mask="2,3"))
    after = fit_classes(before, 5)
    assert changed(before, after) == ["filters=20", "classes=5"] * 2
    assert classes_of(make_plan(after)) == 5


@pytest.mark.parametrize(
    "between",
    [
        "[activation]\nactivation=logistic\n",
        "[dropout]\nprobability=.2\n",
        "[route]\nlayers=-1\n",
        "[upsample]\nstride=2\n",
    ],
)
def test_filters_are_found_through_layers_that_keep_channels(between: str) -> None:
    after = fit_classes(plan(NET + CONV.format(filters=14) + between + YOLO.format(mask="0,1")), 7)
    assert make_plan(after).steps[0].shape.channels == 24


def test_both_sides_of_an_addition_are_fitted() -> None:
    text = NET + CONV.format(filters=14) * 2 + "[shortcut]\nfrom=-2\nactivation=linear\n" + YOLO.format(mask="0,1")
    shapes = [step.shape.channels for step in make_plan(fit_classes(plan(text), 3)).steps[:3]]
    assert shapes == [16, 16, 16]


def test_the_owner_of_shared_weights_is_fitted_too() -> None:
    text = NET + CONV.format(filters=8) + CONV.format(filters=14) + "[route]\nlayers=-2\n"
    text += CONV.format(filters=14) + "share_index=1\n" + YOLO.format(mask="0,1")
    shapes = [step.shape.channels for step in make_plan(fit_classes(plan(text), 3)).steps]
    assert shapes == [8, 16, 8, 16, 16]


def test_concatenated_channels_cannot_be_fitted() -> None:
    text = NET + CONV.format(filters=7) * 2 + "[route]\nlayers=-1,-2\n" + YOLO.format(mask="0,1")
    with pytest.raises(InputError, match="joins or splits"):
        fit_classes(plan(text), 3)


def test_a_classifier_is_fitted_by_its_last_layer_with_filters() -> None:
    before = read_plan(REFERENCE / "train" / "classifier_cost.cfg")
    after = fit_classes(before, 11)
    assert changed(before, after) == ["filters=11"]
    assert classes_of(make_plan(after)) == 11


def test_counters_follow_the_number_of_classes() -> None:
    text = NET + CONV.format(filters=14) + YOLO.format(mask="0,1") + "counters_per_class=5,6\n"
    assert "counters_per_class=1,2,3" in changed(plan(text), fit_classes(plan(text), 3, (1, 2, 3)))


def test_a_cfg_without_head_is_refused() -> None:
    with pytest.raises(InputError, match="no layer with a loss"):
        classes_of(plan(NET + CONV.format(filters=14)))


def test_anchors_masks_and_filters_change_together() -> None:
    text = NET + CONV.format(filters=14) + YOLO.format(mask="2,3") + "[route]\nlayers=-2\n[upsample]\nstride=2\n"
    before = plan(text + CONV.format(filters=14) + YOLO.format(mask="0,1"))
    sizes = [(3.0, 4.0), (6.0, 6.0), (9.5, 12.0), (20.0, 20.0), (40.0, 38.0)]
    after = make_plan(fit_anchors(before, sizes, [(3, 4), (0, 1, 2)]))
    first, second = anchor_heads(after)
    assert (first.section.mask, second.section.mask) == ((3, 4), (0, 1, 2))  # type: ignore[attr-defined]
    assert (first.shape.channels, second.shape.channels) == (14, 21)
    assert anchors_in_pixels(after) == sizes


def test_anchors_of_region_are_in_cells() -> None:
    region = "[region]\nanchors=1,2, 3,4\nclasses=3\nnum=2\ncoords=4\n"
    text = NET + "[convolutional]\nfilters=16\nsize=1\nstride=2\nactivation=linear\n" + region
    before = plan(text)
    assert anchors_in_pixels(before) == [(2.0, 4.0), (6.0, 8.0)]
    after = fit_anchors(before, [(4.0, 6.0)], [(0,)])
    assert "anchors=2,3" in after.text
    assert make_plan(after).steps[0].shape.channels == 8


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("cfg/*.cfg")), ids=lambda path: path.stem)
def test_shipped_cfgs_can_be_fitted(path: object) -> None:
    assert classes_of(make_plan(fit_classes(read_plan(str(path)), 3))) == 3
