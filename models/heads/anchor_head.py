"""What [yolo] and [Gaussian_yolo] share: assignment of objects to boxes and anchors, class loss, adversarial loss.

The loss is defined by a delta: the change of the head's input that the original computes by hand-written rules (yolo_layer.c
process_batch and its counterpart in gaussian_yolo_layer.c). First every box that overlaps no object is trained as background.
Then the targets are applied in the original's order, which matters where several share one box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from models.heads.anchors import AnchorSection
from models.heads.base import HeadLoss, loss_value
from models.heads.box_gradient import box_gradient
from models.heads.grid import (
    GridHead,
    Locations,
    all_locations,
    entries_at,
    grid_of,
    locations_where,
    split_anchors,
    write_entries,
)
from models.heads.matching import (
    GroundTruth,
    best_match,
    cells_of,
    group_by_box,
    map_classes,
    match_anchors,
    read_ground_truth,
)
from models.layers.base import Site

CLASS_THRESHOLD = 0.25  # compare_yolo_class: near an object, only boxes with a higher class probability are ignored
FOCAL_ALPHA = 0.5
FOCAL_EPSILON = 1e-15


class Matches(NamedTuple):
    """The k boxes that match an object: their locations, the object's index in GroundTruth (k,), the IoU (k,)."""

    at: Locations
    gt_index: Tensor
    overlap: Tensor


@dataclass(frozen=True)
class Targets:
    """The objects that k boxes are trained on, in the order in which they apply: matches by IoU, then anchor matches.

    class_ids: (k,), target class.
    assigned: bool (k,), whether matched by its anchor.
    overlap: (k,), IoU; 1 for anchor matches.
    entries: (k, entries), outputs of the head.
    predicted, wanted: boxes cxcywh_rel (k, 4).
    """

    at: Locations
    class_ids: Tensor
    assigned: Tensor
    overlap: Tensor
    entries: Tensor
    predicted: Tensor
    wanted: Tensor

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True)
class TargetDeltas:
    """Deltas of k targets, in the order in which they apply.

    box: (k, entries before the objectness), added to the box's delta.
    objectness: (k,), replaces the box's objectness delta.
    keeps: bool (k,), whether a non-zero objectness delta is kept instead.
    class_ids: (k,), target class.
    class_value: (k,), replaces the delta of the target class after the class loss; NaN: leave it.
    """

    at: Locations
    box: Tensor
    objectness: Tensor
    keeps: Tensor
    class_ids: Tensor
    class_value: Tensor


@dataclass(frozen=True)
class ClassLoss:
    """How a target changes the class deltas of its box (yolo_layer.c and gaussian_yolo_layer.c, delta_..._class).

    The first target of a box sets the deltas of all classes, later targets only that of their own class. A target counts as a
    later one if the delta of its own class or, in [Gaussian_yolo], of class 0 (`checks_first`) is not zero.
    """

    factors: list[float] | None
    smoothing: float
    normalizer: float
    focal: bool = False
    checks_first: bool = False

    @classmethod
    def of(cls, section: AnchorSection, *, focal: bool = False, checks_first: bool = False) -> ClassLoss:
        factors = class_factors(section.counters_per_class, section.max_delta)
        return cls(factors, section.label_smooth_eps, section.cls_normalizer, focal, checks_first)

    def factor(self, class_ids: Tensor) -> Tensor:
        """Factor (k,) for each target; 1 without counters_per_class."""
        if self.factors is None:
            return torch.ones(len(class_ids), device=class_ids.device)
        return torch.tensor(self.factors, device=class_ids.device)[class_ids]

    def apply(self, found: Tensor, delta: Tensor, class_ids: Tensor) -> Tensor:
        """Class delta (k, classes) after one more target in each of k boxes; `found` (outputs) and `delta` have that shape too."""
        classes = class_ids[:, None]
        own = found.gather(1, classes)
        factor = self.factor(class_ids)[:, None]
        so_far = delta.gather(1, classes)
        checked = delta[:, :1] if self.checks_first else so_far
        change = self._smooth(torch.ones_like(own)) - own
        added = delta.scatter(1, classes, torch.where(change.isfinite(), change, so_far) * factor)
        return torch.where(checked != 0, added, self._first(found, delta, classes, own, factor))

    def _first(self, found: Tensor, delta: Tensor, classes: Tensor, own: Tensor, factor: Tensor) -> Tensor:
        target = torch.zeros_like(found).scatter(1, classes, 1.0)
        if self.focal:
            return (target - found) * focal_factor(own)
        change = self._smooth(target) - found
        change = torch.where(change.isfinite(), change, delta)
        if self.factors is None:
            return change
        return torch.where(target > 0, change * factor * self.normalizer, change)

    def _smooth(self, target: Tensor) -> Tensor:
        return target * (1 - self.smoothing) + 0.5 * self.smoothing if self.smoothing else target


def class_factors(counters: Sequence[int] | None, most: float) -> list[float] | None:
    """Factor of each class: the highest count divided by its own, at most `most` (parser.c get_classes_multipliers)."""
    if counters is None:
        return None
    counts = [max(1, count) for count in counters]
    return [min(max(counts) / count, most) for count in counts]


def focal_factor(probability: Tensor) -> Tensor:
    """Focal-loss factor on the class deltas of a box, given the probability of the target class."""
    sure = probability + FOCAL_EPSILON
    return FOCAL_ALPHA * (-(1 - sure) * (2 * sure * sure.log() + sure - 1))


class AnchorHead(GridHead):
    """A head that assigns objects to anchors by shape."""

    section: AnchorSection
    adversarial_classes: ClassVar[bool]  # see adversarial_loss

    def __init__(self, section: AnchorSection, site: Site) -> None:
        super().__init__()
        self.section = section
        self.cfg_path = site.raw.path
        self.anchors, self.own_sizes = len(section.indices), section.own_sizes

    def delta(self, cells: Tensor, ground_truth: GroundTruth, size_wh: tuple[int, int]) -> tuple[Tensor, Targets]:
        """Delta for the outputs `cells` (n, anchors, entries, h, w), in the same shape, and the targets. May modify `cells`."""
        raise AssertionError(f"{type(self).__name__} lacks delta()")

    def report(self, x: Tensor, delta: Tensor, targets: Targets, no_object: Tensor) -> HeadLoss:
        """Build the HeadLoss of a delta; no_object: mean objectness of all boxes."""
        raise AssertionError(f"{type(self).__name__} lacks report()")

    def loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> HeadLoss:
        with torch.no_grad():
            cells = split_anchors(self(x), self.anchors)
            ground_truth = read_ground_truth(labels.to(cells.device), self.section.max_truths, self.section.classes)
            delta, targets = self.delta(cells, ground_truth, size_wh)
            no_object = cells[:, :, self.objectness_at].mean()
        return self.report(x, delta, targets, no_object)

    def adversarial_loss(self, x: Tensor, labels: Tensor, size_wh: tuple[int, int], seen: int) -> Tensor:
        """Lower the objectness and the confident classes of every box, in proportion to the square root of its area.

        With `adversarial_classes`, boxes with a confident class also raise all other classes and shrink their coordinates to 0.
        """
        with torch.no_grad():
            cells, at = split_anchors(self(x), self.anchors), self.objectness_at
            locations = all_locations(cells)
            entries = entries_at(cells, locations)
            boxes = self.boxes(entries[:, :at], locations, grid_of(cells), size_wh)
            scale = (boxes[:, 2] * boxes[:, 3]).sqrt()[:, None]
            objectness, classes = entries[:, at : at + 1], entries[:, at + 1 :]
            scores = classes * objectness
            confident = scores > CLASS_THRESHOLD
            delta = torch.zeros_like(entries)
            delta[:, at : at + 1] = -scale * self.section.obj_normalizer * objectness
            delta[:, at + 1 :] = torch.where(confident, -scale * classes, 0.0)
            if self.adversarial_classes:
                any_confident = confident.any(1, keepdim=True)
                others = any_confident & (scores < CLASS_THRESHOLD)
                delta[:, at + 1 :] += torch.where(others, scale * (1 - classes), 0.0)
                delta[:, :at] = torch.where(any_confident, -scale * entries[:, :at], 0.0)
            delta = write_entries(torch.zeros_like(cells), locations, delta)
        return loss_value(x, delta, delta.new_zeros(())) * self.section.delta_normalizer

    def background_delta(
        self, cells: Tensor, ground_truth: GroundTruth, size_wh: tuple[int, int]
    ) -> tuple[Tensor, Matches, Matches]:
        """Delta (n, anchors, entries, h, w) of all boxes as background, and two groups of boxes that match an object.

        The first group has a confident class and an IoU above ignore_thresh: its objectness is left alone. The second has an
        IoU above truth_thresh: it is trained on the object.
        """
        section, at = self.section, self.objectness_at
        confident = (cells[:, :, at + 1 :] > CLASS_THRESHOLD).any(2)
        compared = torch.ones_like(confident) if section.truth_thresh < 1 else confident
        if not ground_truth.padded.shape[1]:
            compared = torch.zeros_like(confident)
        locations = locations_where(compared)
        boxes = self.boxes(entries_at(cells[:, :, :at], locations), locations, grid_of(cells), size_wh)
        overlap, column = best_match(boxes, locations.image, ground_truth.padded)
        image, anchor, row, col = locations
        ignored = confident[image, anchor, row, col] & (overlap > section.ignore_thresh)
        delta = torch.zeros_like(cells)
        objectness = -section.obj_normalizer * cells[:, :, at]
        objectness[_pick(locations, ignored)] = 0.0
        delta[:, :, at] = objectness
        groups = []
        for chosen in (ignored, overlap > section.truth_thresh):
            some = _pick(locations, chosen)
            groups.append(Matches(some, ground_truth.index_of[some.image, column[chosen]], overlap[chosen]))
        return delta, groups[0], groups[1]

    def assign_targets(
        self,
        cells: Tensor,
        ground_truth: GroundTruth,
        matches: Sequence[Matches],
        points_rel: Tensor,
        size_wh: tuple[int, int],
    ) -> Targets:
        """All targets: `matches` in the given order, then boxes whose anchor has an object's shape, in ground-truth order.

        points_rel: (objects, 2), the point of each object that decides its cell.
        """
        section, grid_wh = self.section, grid_of(cells)
        sizes = points_rel.new_tensor(section.anchor_sizes) / points_rel.new_tensor(size_wh)
        wh = ground_truth.cxcywh_rel[:, 2:]
        index, position = match_anchors(wh, sizes, section.indices, section.iou_thresh, section.iou_thresh_kind)
        col, row = cells_of(points_rel[index], grid_wh)
        own = Matches(Locations(ground_truth.image[index], position, row, col), index, points_rel.new_ones(len(index)))
        groups = (*matches, own)
        at = Locations(*(torch.cat(each) for each in zip(*(group.at for group in groups), strict=True)))
        gt_index = torch.cat([group.gt_index for group in groups])
        entries = entries_at(cells, at)
        return Targets(
            at,
            map_classes(ground_truth.class_ids[gt_index], section.map, self.cfg_path, section.classes),
            torch.arange(len(gt_index), device=gt_index.device) >= len(gt_index) - len(index),
            torch.cat([group.overlap for group in groups]),
            entries,
            self.boxes(entries, at, grid_wh, size_wh),
            ground_truth.cxcywh_rel[gt_index],
        )

    def apply_targets(
        self, cells: Tensor, delta: Tensor, deltas: TargetDeltas, class_loss: ClassLoss
    ) -> tuple[Locations, Tensor]:
        """Apply the targets round by round; returns the boxes affected and their new delta (s, entries). `delta` is unchanged."""
        at = self.objectness_at
        groups = group_by_box(deltas.at, (len(cells), cells.shape[1], *cells.shape[3:]))
        entries, state = entries_at(cells, groups.at), entries_at(delta, groups.at)
        for chosen in groups.rounds():
            box = groups.box_of[chosen]
            now = state[box]
            kept = deltas.keeps[chosen] & (now[:, at] != 0)
            objectness = torch.where(kept, now[:, at], deltas.objectness[chosen])
            ids = deltas.class_ids[chosen]
            classes = class_loss.apply(entries[box, at + 1 :], now[:, at + 1 :], ids)
            value = deltas.class_value[chosen, None]
            classes = torch.where(value.isnan(), classes, classes.scatter(1, ids[:, None], value))
            state[box] = torch.cat((now[:, :at] + deltas.box[chosen], objectness[:, None], classes), 1)
        return groups.at, state

    def average_boxes(self, state: Tensor, chosen: Tensor) -> Tensor:
        """Divide box entries of (s, entries) by the number of positive class deltas, where `chosen` (averages_yolo_deltas)."""
        at = self.objectness_at
        rising = (state[:, at + 1 :] > 0).sum(1).clamp(min=1)
        divisor = torch.where(chosen, rising, 1)[:, None]
        return torch.cat((state[:, :at] / divisor, state[:, at:]), 1)

    def overlap_gradient(self, targets: Targets) -> Tensor:
        """`box_gradient` (k, 4) of the predicted boxes for iou_loss; a width or height of 0 counts as 1."""
        predicted = targets.predicted
        size = torch.where(predicted[:, 2:] == 0, 1.0, predicted[:, 2:])
        return box_gradient(torch.cat((predicted[:, :2], size), 1), targets.wanted, self.section.iou_loss)

    def target_probability(self, targets: Targets) -> Tensor:
        """Class probability (k,) predicted for the class of each target."""
        return targets.entries[:, self.objectness_at + 1 :].gather(1, targets.class_ids[:, None])[:, 0]


def _pick(at: Locations, chosen: Tensor) -> Locations:
    return Locations(*(each[chosen] for each in at))


def finite(values: Tensor, most: float) -> Tensor:
    """Replace NaN and infinity by 0, then clip to +-most (yolo_layer.c fix_nan_inf, clip_value)."""
    return torch.where(values.isfinite(), values, 0.0).clamp(-most, most)
