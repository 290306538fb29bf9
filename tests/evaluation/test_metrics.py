from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics.coco import STATISTICS, coco_ap, result_rows
from evaluation.metrics.confusion import confusion, pair_greedily
from evaluation.metrics.darknet import POINTS, average_precision, confidence_curves, darknet_map
from evaluation.metrics.matching import pairwise_iou
from evaluation.metrics.voc import voc_ap
from tests.evaluation.plain_darknet_map import plain_map
from tests.evaluation.random_scenes import found_of, random_scene, truth_of
from utils.detections import Detections

BOX = [10, 10, 30, 30]
NEAR = [10, 10, 30, 28]
FAR = [60, 60, 80, 80]


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("seed", range(6))
def test_darknet_map_equals_the_plain_one(seed: int, points: int) -> None:
    found, truths = random_scene(seed)
    ours = darknet_map(found, truths, 4)
    aps, tp, fp, average_iou = plain_map(found, truths, 4, points)
    np.testing.assert_allclose(ours.average_precisions(points), aps, rtol=0, atol=1e-12)
    assert ours.true_positives.tolist() == tp and ours.false_positives.tolist() == fp
    assert ours.average_iou == pytest.approx(average_iou, abs=1e-6)
    assert ours.mean_average_precision(points) == pytest.approx(np.mean(aps))


@pytest.mark.parametrize(
    ("recall", "precision", "points", "expected"),
    [
        ([], [], 0, 0.0),
        ([], [], 11, 0.0),
        ([0.5, 1.0], [1.0, 1.0], 0, 1.0),
        ([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3], 0, 0.5 + 0.5 * 2 / 3),
        ([0.0, 1.0], [0.0, 0.5], 0, 0.5),
        # the quirk: recall from 0.5 to 1 counts with precision 1, that of the previous detection
        ([0.5, 1.0], [1.0, 0.5], 0, 1.0),
        ([0.5, 0.5], [1.0, 0.5], 11, 6 / 11),
        ([0.5, 0.5], [1.0, 0.5], 101, 51 / 101),
        ([0.0, 0.0], [0.0, 0.0], 11, 0.0),
    ],
)
def test_average_precision_by_hand(recall: list, precision: list, points: int, expected: float) -> None:
    assert average_precision(np.array(recall), np.array(precision), points) == pytest.approx(expected)


CASES = {
    # name: (truth, found, [tp, fp, fn], voc 2010)
    "one found": (truth_of([BOX], [0]), found_of([NEAR], [0.9], [0]), [1, 0, 0], 1.0),
    "found twice": (truth_of([BOX], [0]), found_of([NEAR, BOX], [0.9, 0.8], [0, 0]), [1, 1, 0], 1.0),
    "wrong class": (truth_of([BOX], [0]), found_of([BOX], [0.9], [1]), [0, 1, 1], 0.0),
    "low score": (truth_of([BOX], [0]), found_of([BOX], [0.2], [0]), [0, 0, 1], 1.0),
    "elsewhere": (truth_of([BOX], [0]), found_of([FAR], [0.9], [0]), [0, 1, 1], 0.0),
    "nothing found": (truth_of([BOX], [0]), Detections.empty(), [0, 0, 1], 0.0),
    "empty image": (truth_of([], []), found_of([BOX], [0.9], [0]), [0, 1, 0], float("nan")),
    "nothing at all": (truth_of([], []), Detections.empty(), [0, 0, 0], float("nan")),
    "crowd alone": (truth_of([BOX], [0], crowd=[1]), found_of([BOX], [0.9], [0]), [0, 1, 0], float("nan")),
    "difficult alone": (truth_of([BOX], [0], difficult=[1]), found_of([BOX], [0.9], [0]), [0, 1, 0], float("nan")),
    "no area": (truth_of([[5, 5, 5, 5]], [0]), found_of([[5, 5, 5, 5]], [0.9], [0]), [0, 1, 1], 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_one_image(name: str) -> None:
    truth, found, expected, ap_2010 = CASES[name]
    ours = darknet_map([found], [truth], 2)
    assert [ours.tp, ours.fp, ours.fn] == expected
    assert voc_ap([found], [truth], 2).ap_2010[0] == pytest.approx(ap_2010, nan_ok=True)


def test_difficult_objects_leave_the_curve_but_not_the_count() -> None:
    truth = truth_of([BOX, FAR], [0, 0], difficult=[1, 0])
    found = found_of([BOX, FAR], [0.9, 0.8], [0, 0])
    ours = darknet_map([found], [truth], 1)
    assert (ours.tp, ours.fp) == (1, 1)
    assert ours.mean_average_precision(11) == 1.0
    assert voc_ap([found], [truth], 1).map_2007 == 1.0


def test_class_ids_beyond_the_names_do_not_count() -> None:
    truth, found = truth_of([BOX, FAR], [0, 7]), found_of([BOX, FAR], [0.9, 0.8], [0, 7])
    ours = darknet_map([found], [truth], 1)
    assert (ours.tp, ours.fp, ours.fn) == (1, 0, 0)
    assert voc_ap([found], [truth], 1).map_2010 == 1.0
    assert confusion([found], [truth], 1).matrix.tolist() == [[1, 0], [0, 0]]


def test_no_images() -> None:
    assert darknet_map([], [], 2).mean_average_precision() == 0
    assert np.isnan(voc_ap([], [], 2).map_2010)
    assert coco_ap([], [], [], [1, 2]).statistics["AP"] == -1
    assert confidence_curves(darknet_map([], [], 2).ranked).best_threshold == 0


def test_voc_iou_includes_the_last_pixel() -> None:
    a, b = np.array([[0, 0, 9, 9.0]]), np.array([[0, 0, 9, 4.0]])
    assert pairwise_iou(a, b, border=1)[0, 0] == 0.5
    assert pairwise_iou(a, b)[0, 0] == 4 / 9


@pytest.mark.parametrize("seed", range(3))
def test_coco_equals_pycocotools_on_the_files(seed: int, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    found, truths = random_scene(seed, images=20)
    image_ids, categories = list(range(5, 25)), [3, 4, 70, 91]
    rows = result_rows(found, image_ids, categories)
    ours = coco_ap(rows, truths, image_ids, categories)
    boxes = [
        {
            "image_id": image_id,
            "category_id": categories[class_id],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": area,
            "iscrowd": int(crowd),
        }
        for truth, image_id in zip(truths, image_ids, strict=True)
        for box, class_id, area, crowd in zip(truth.xyxy, truth.class_ids, truth.areas_px, truth.crowd, strict=True)
    ]
    content = {
        "info": {},
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": c} for c in categories],
        "annotations": [{**box, "id": i} for i, box in enumerate(boxes, 1)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content, default=float))
    (tmp_path / "results.json").write_text(json.dumps(rows))
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = coco.COCO(tmp_path / "truth.json")
        evaluation = cocoeval.COCOeval(truth_set, truth_set.loadRes(str(tmp_path / "results.json")), "bbox")
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    assert list(ours.statistics) == list(STATISTICS)
    np.testing.assert_allclose(list(ours.statistics.values()), evaluation.stats, rtol=0, atol=1e-12)
    assert np.nanmean(ours.ap) == pytest.approx(ours.statistics["AP"])
    assert np.nanmean(ours.ap50) == pytest.approx(ours.statistics["AP50"])
    assert np.isnan(ours.ap[3])


@pytest.mark.parametrize("seed", range(4))
def test_greedy_pairs(seed: int) -> None:
    iou = np.random.default_rng(seed).random((9, 6)).round(1)
    left, expected = iou.copy(), []
    while (left > 0.3).any():
        row, column = np.unravel_index(left.argmax(), left.shape)
        expected.append((int(row), int(column)))
        left[row], left[:, column] = 0, 0
    rows, columns = pair_greedily(iou, 0.3)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(expected)


def test_confusion_matrix_and_worst_images() -> None:
    truths = [truth_of([BOX, FAR], [0, 1]), truth_of([BOX], [1]), truth_of([BOX, FAR], [0, 0], crowd=[0, 1])]
    found = [
        found_of([NEAR, [1, 1, 3, 3]], [0.9, 0.8], [1, 0]),
        found_of([NEAR], [0.9], [1]),
        found_of([FAR], [0.9], [0]),
    ]
    ours = confusion(found, truths, 2)
    assert ours.matrix.tolist() == [[0, 0, 1], [1, 1, 0], [1, 1, 0]]
    assert ours.worst(5).tolist() == [0, 2]


def test_confidence_curves() -> None:
    truths, found = [truth_of([BOX, FAR], [0, 0])], [found_of([BOX, [40, 40, 50, 50]], [0.8, 0.4], [0, 0])]
    ours = confidence_curves(darknet_map(found, truths, 2).ranked)
    at = {t: int(np.flatnonzero(np.isclose(ours.thresholds, t))[0]) for t in (0.0, 0.5, 0.9)}
    assert ours.precision[0, [at[0.0], at[0.5], at[0.9]]].tolist() == [0.5, 1.0, 1.0]
    assert ours.recall[0, [at[0.0], at[0.5], at[0.9]]].tolist() == [0.5, 0.5, 0.0]
    assert np.isnan(ours.f1[1]).all() and 0.4 <= ours.best_threshold <= 0.8
    assert ours.precision_at_recall[0, [0, 250, 251]].tolist() == [1.0, 1.0, 0.0]
