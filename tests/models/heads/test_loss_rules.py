"""Rules of the losses that the recordings do not cover, and bad ground truth."""

from __future__ import annotations

import logging
import math
import random

import pytest
import torch
from torch import Tensor

from models.heads.base import Head
from tests.models.heads.build import build_head

SIZE_WH = (64, 48)
KINDS = ("mse", "iou", "giou", "diou", "ciou")
HEADS = {
    **{f"yolo-{kind}": (f"[yolo]\nclasses=3\nanchors=10,20\niou_loss={kind}\n", 8) for kind in KINDS},
    "yolo-all": (
        "[yolo]\nclasses=3\nnum=2\nanchors=10,20,30,15\niou_loss=ciou\niou_thresh=0.2\ntruth_thresh=0.3\n"
        "objectness_smooth=1\nmax_delta=5\nlabel_smooth_eps=0.1\ncounters_per_class=10,5,1\n",
        16,
    ),
    "Gaussian_yolo": ("[Gaussian_yolo]\nclasses=3\nanchors=10,20\niou_thresh=0.2\nobjectness_smooth=1\n", 12),
    "region": ("[region]\nclasses=3\nanchors=1,2\nsoftmax=1\nrescore=1\nclassfix=1\n", 8),
    "detection": ("[detection]\nclasses=3\nside=2\ncoords=4\nsqrt=1\n", 32),
}


@pytest.fixture(params=HEADS)
def head_and_input(request: pytest.FixtureRequest) -> tuple[Head, Tensor]:
    text, channels = HEADS[request.param]
    width, height = (1, 1) if request.param == "detection" else (4, 3)
    head = build_head(text, channels, width, height)
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(3))
    return head, x.requires_grad_()


def rows(*values: tuple[float, ...]) -> Tensor:
    """Ground truth of two images: the given boxes in the first, none in the second."""
    table = torch.zeros(2, 6, 5)
    table[0, : len(values)] = torch.tensor(values).view(-1, 5)
    return table


def test_without_ground_truth_everything_is_background(head_and_input: tuple[Head, Tensor]) -> None:
    head, x = head_and_input
    for truth in (rows(), torch.zeros(2, 0, 5)):
        loss = head.loss(x, truth, SIZE_WH, 10**6)
        (gradient,) = torch.autograd.grad(loss.value, x)
        assert loss.targets == 0 and loss.terms["class"] == 0 and loss.terms["box"] == 0
        assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize(
    "truth",
    [
        (0.5, 0.5, 0.0, 0.0, 1.0),
        (0.5, 0.5, 0.0, 0.3, 1.0),
        (1.0, 1.0, 0.2, 0.2, 1.0),
        (0.999, 0.0, 0.2, 0.2, 0.0),
        (-0.2, 1.7, 0.2, 0.2, 0.0),
        (0.5, 0.5, 5.0, 9.0, 2.0),
        (1e-9, 1e-9, 1e-9, 1e-9, 2.0),
    ],
)
def test_odd_ground_truth_stays_finite_and_in_its_image(
    head_and_input: tuple[Head, Tensor], truth: tuple[float, ...]
) -> None:
    head, x = head_and_input
    loss = head.loss(x, rows(truth), SIZE_WH, 10**6)
    (gradient,) = torch.autograd.grad(loss.value, x)
    (alone,) = torch.autograd.grad(head.loss(x, rows(), SIZE_WH, 10**6).value, x)
    assert loss.targets >= 1 and math.isfinite(loss.cost)
    assert gradient.isfinite().all()
    assert torch.equal(gradient[1], alone[1])


@pytest.mark.parametrize("class_id", [3.0, 200.0, -1.0])
def test_class_ids_out_of_range_are_skipped(
    head_and_input: tuple[Head, Tensor], class_id: float, caplog: pytest.LogCaptureFixture
) -> None:
    head, x = head_and_input
    good, bad = (0.3, 0.4, 0.2, 0.3, 1.0), (0.7, 0.6, 0.3, 0.3, class_id)
    with caplog.at_level(logging.WARNING):
        loss = head.loss(x, rows(bad, good), SIZE_WH, 10**6)
    assert "1 labels have a class that is not in 0 to 2" in caplog.text
    alone = head.loss(x, rows(good), SIZE_WH, 10**6)
    assert loss.cost == alone.cost and loss.targets == alone.targets


def test_rows_end_at_the_first_without_x(head_and_input: tuple[Head, Tensor]) -> None:
    head, x = head_and_input
    good = (0.3, 0.4, 0.2, 0.3, 1.0)
    more = head.loss(x, rows(good, (0.0, 0.0, 0.0, 0.0, 0.0), (0.7, 0.6, 0.2, 0.2, 1.0)), SIZE_WH, 10**6)
    assert more.cost == head.loss(x, rows(good), SIZE_WH, 10**6).cost


@pytest.mark.parametrize("name", ["yolo-ciou", "Gaussian_yolo", "region"])
def test_maximum_of_ground_truth_boxes(name: str) -> None:
    text, channels = HEADS[name]
    head = build_head(f"{text}max=1\n", channels)
    x = torch.randn(2, channels, 3, 4)
    first, second = (0.3, 0.4, 0.2, 0.3, 1.0), (0.7, 0.6, 0.2, 0.2, 1.0)
    limited = head.loss(x, rows(first, second), SIZE_WH, 0)
    assert limited.cost == head.loss(x, rows(first), SIZE_WH, 0).cost


def test_nan_objectness_counts_as_zero() -> None:
    head = build_head("[yolo]\nclasses=1\nanchors=10,10\n", 6)
    x = torch.zeros(1, 6, 3, 4)
    x[0, 4, 1, 1] = torch.nan
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(head.loss(x, rows()[:1], SIZE_WH, 0).value, x)
    assert gradient[0, 4, 1, 1] == 0 and gradient.isfinite().all()


def test_region_pulls_boxes_towards_their_anchors_at_first() -> None:
    text, channels = HEADS["region"]
    head = build_head(text, channels)
    x = torch.randn(1, channels, 3, 4)
    assert head.loss(x, rows()[:1], SIZE_WH, 12_799).terms["box"] > 0
    assert head.loss(x, rows()[:1], SIZE_WH, 12_800).terms["box"] == 0


def test_averages_match_the_printed_line() -> None:
    head = build_head("[yolo]\nclasses=2\nanchors=16,16\n", 7)
    x = torch.zeros(1, 7, 3, 4)  # every box: centre of its cell, 16x16 px, objectness and class probabilities 0.5
    truth = torch.tensor([[[0.375, 0.5, 16 / 64, 16 / 48, 1.0]]])
    loss = head.loss(x, truth, SIZE_WH, 0)
    expected = {"iou": 1.0, "giou": 1.0, "objectness": 0.5, "class": 0.5, "no_object": 0.5}
    assert {key: loss.averages[key] for key in expected} == pytest.approx(expected)
    assert loss.averages["total_loss"] == pytest.approx(loss.cost) and loss.targets == 1


# A slow equivalent of yolo_layer.c process_batch, to test the order of several objects in one box (squared error, one head).


def slow_iou(a: list[float], b: list[float]) -> float:
    extent = [
        min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2) - max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2) for k in (0, 1)
    ]
    common = extent[0] * extent[1] if min(extent) > 0 else 0.0
    return common / (a[2] * a[3] + b[2] * b[3] - common)


class SlowYolo:
    def __init__(self, x: Tensor, options: dict[str, float], anchors: list[tuple[float, float]], factors: list[float]):
        self.options, self.anchors, self.factors = options, anchors, factors
        self.height, self.width = x.shape[2:]
        self.out = x.double().view(len(anchors), -1, self.height, self.width).clone()
        self.out[:, :2], self.out[:, 4:] = self.out[:, :2].sigmoid(), self.out[:, 4:].sigmoid()
        self.delta = torch.zeros_like(self.out)

    def box(self, a: int, j: int, i: int) -> list[float]:
        x, y, w, h = self.out[a, :4, j, i].tolist()
        aw, ah = self.anchors[a]
        return [(i + x) / self.width, (j + y) / self.height, math.exp(w) * aw / 64, math.exp(h) * ah / 48]

    def class_delta(self, a: int, j: int, i: int, c: int) -> None:
        out, delta = self.out[a, 5:, j, i], self.delta[a, 5:, j, i]
        eps = self.options["label_smooth_eps"]
        if delta[c] != 0:
            delta[c] = ((1 - eps + 0.5 * eps) - out[c]) * self.factors[c]
            return
        for k in range(len(out)):
            delta[k] = (float(k == c) * (1 - eps) + 0.5 * eps) - out[k]
        delta[c] *= self.factors[c] * self.options["cls_normalizer"]

    def box_delta(self, a: int, j: int, i: int, t: list[float], factor: float) -> None:
        aw, ah = self.anchors[a]
        goal = [t[0] * self.width - i, t[1] * self.height - j, math.log(t[2] * 64 / aw), math.log(t[3] * 48 / ah)]
        for k in range(4):
            error = goal[k] - float(self.out[a, k, j, i])
            self.delta[a, k, j, i] += (2 - t[2] * t[3]) * error * self.options["iou_normalizer"] * factor

    def background(self, truths: list[list[float]]) -> None:
        norm, smooth = self.options["obj_normalizer"], self.options["objectness_smooth"]
        for a in range(len(self.anchors)):
            for j in range(self.height):
                for i in range(self.width):
                    overlaps = [slow_iou(self.box(a, j, i), t[:4]) for t in truths]
                    best = max(range(len(truths)), key=lambda k: overlaps[k])
                    obj = float(self.out[a, 4, j, i])
                    self.delta[a, 4, j, i] = -norm * obj
                    if overlaps[best] > self.options["ignore_thresh"] and (self.out[a, 5:, j, i] > 0.25).any():
                        self.delta[a, 4, j, i] = norm * (overlaps[best] - obj) if smooth else 0.0
                    if overlaps[best] > self.options["truth_thresh"]:
                        self.surpass(a, j, i, truths[best], overlaps[best])

    def surpass(self, a: int, j: int, i: int, t: list[float], overlap: float) -> None:
        goal = overlap**2 if self.options["objectness_smooth"] else 1.0
        c = int(t[4])
        self.delta[a, 4, j, i] = self.options["obj_normalizer"] * (goal - self.out[a, 4, j, i])
        self.class_delta(a, j, i, c)
        if self.options["objectness_smooth"]:
            self.delta[a, 5 + c, j, i] = self.factors[c] * (goal - self.out[a, 5 + c, j, i])
        self.box_delta(a, j, i, t, self.factors[c])

    def truth(self, t: list[float]) -> None:
        i, j, c = int(t[0] * self.width), int(t[1] * self.height), int(t[4])
        shapes = [slow_iou([0, 0, w / 64, h / 48], [0, 0, t[2], t[3]]) for w, h in self.anchors]
        best = max(range(len(shapes)), key=lambda k: shapes[k])
        threshold = self.options["iou_thresh"]
        others = [k for k in range(len(shapes)) if k != best and threshold < 1 and shapes[k] > threshold]
        for a in (best, *others):
            self.box_delta(a, j, i, t, self.factors[c])
            wanted = self.factors[c] * self.options["obj_normalizer"] * (1 - self.out[a, 4, j, i])
            if not self.options["objectness_smooth"] or self.delta[a, 4, j, i] == 0:
                self.delta[a, 4, j, i] = wanted
            self.class_delta(a, j, i, c)

    def average(self) -> None:
        for a in range(len(self.anchors)):
            rising = (self.delta[a, 5:] > 0).sum(0).clamp(min=1)
            self.delta[a, :4] /= torch.where(self.delta[a, 4] != 0, rising, 1)


@pytest.mark.parametrize("seed", range(24))
def test_several_objects_in_one_box(seed: int) -> None:
    rng = random.Random(seed)
    options: dict[str, float] = {
        "ignore_thresh": rng.choice([0.3, 0.6]),
        "truth_thresh": rng.choice([1.0, 0.4]),
        "iou_thresh": rng.choice([1.0, 0.3]),
        "objectness_smooth": rng.choice([0, 1]),
        "label_smooth_eps": rng.choice([0.0, 0.1]),
        "iou_normalizer": 0.5,
        "obj_normalizer": 0.7,
        "cls_normalizer": 0.6,
    }
    counters = [1, 4, 2, 8] if seed % 2 else [1, 1, 1, 1]
    text = "".join(f"{key}={value}\n" for key, value in options.items()) + "anchors=10,20,30,15,14,16\nnum=3\n"
    head = build_head(f"[yolo]\nclasses=4\n{text}counters_per_class={','.join(map(str, counters))}\n", 27, 3, 2)
    x = torch.randn(1, 27, 2, 3, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    truths = [  # crowded: 8 objects in 6 cells
        [
            rng.uniform(0.05, 0.95),
            rng.uniform(0.05, 0.95),
            rng.uniform(0.1, 0.6),
            rng.uniform(0.1, 0.6),
            rng.randrange(4),
        ]
        for _ in range(8)
    ]
    slow = SlowYolo(x.detach(), options, [(10, 20), (30, 15), (14, 16)], [max(counters) / each for each in counters])
    slow.background(truths)
    for truth in truths:
        slow.truth(truth)
    if options["iou_thresh"] < 1:
        slow.average()
    (gradient,) = torch.autograd.grad(head.loss(x, torch.tensor([truths]), SIZE_WH, 0).value, x)
    torch.testing.assert_close(-gradient, slow.delta.view_as(x).float(), rtol=1e-4, atol=1e-5)
