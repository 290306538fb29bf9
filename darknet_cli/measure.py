"""`detector map`, `valid`, `recall` and `calc_anchors`: measure a detector or a data set."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from darknet_cli.detect import report_bad_image, show
from darknet_cli.grammar import Words
from darknet_cli.network import append_line, base_name, open_printed, option, print_heads, stderr, stdout
from data.anchors import anchor_fit, compute_anchors, shape_iou
from data.annotations import Annotation
from data.formats.coco import COCO_IDS
from data.formats.darknet import TextLabels, original_label_path, read_data, read_difficult, read_list
from data.image import read_image, save_image
from evaluation.metrics.darknet import NMS_THRESH, SCORE_THRESH, darknet_map
from evaluation.metrics.report import c_ratio, darknet_text
from evaluation.metrics.voc import write_results
from evaluation.run import Predictions, predict_images, require_complete
from inference.detector import Detector
from inference.predictor import NmsOptions
from utils.boxes import iou
from utils.detections import Detections
from utils.errors import InputError, RunError
from utils.files import write_text
from utils.net_options import ScheduleOptions
from utils.nms import suppress

_MISSING = "Can't open label file. (This can be normal only if you use MSCOCO): {} \n"
_POINTS = (
    "\nSet -points flag:\n `-points 101` for MS COCO \n"
    " `-points 11` for PascalVOC 2007 (uncomment `difficult` in voc.data) \n"
    " `-points 0` (AUC) for ImageNet, PascalVOC 2010-2012, your custom dataset\n"
)


def _labels(read: TextLabels, image: Path) -> Annotation:
    """Return the labels of an image; report a missing file and add it to bad.list (data.c read_boxes)."""
    found = read(image)
    if found.label_path is None:
        path = original_label_path(image)
        stdout(_MISSING.format(path))
        append_line("bad.list", path)
    return found


def _predicted(model: Detector, images: Sequence[Path], nms: NmsOptions) -> Predictions:
    start = time.perf_counter()
    predictions = predict_images(model, images, [nms], batch_size=1)
    for path, reason in predictions.unreadable.items():
        report_bad_image(path, InputError(reason))
    stderr(f"Total Detection Time: {time.perf_counter() - start:f} Seconds")
    return predictions


def map_table(words: Words) -> None:
    """`detector map DATA CFG WEIGHTS` (detector.c validate_detector_map)."""
    options = read_data(words.at(2, "the .data file"))
    valid = option(options, "valid", "data/train.txt")
    model = _detector(words, options)
    images, predictions, _ = measured_map(
        model, Path(valid), options, thresh=words["-thresh"], iou_thresh=words["-iou_thresh"], points=words["-points"]
    )
    require_complete(images, predictions)


def measured_map(
    model: Detector, images_list: Path, options: Mapping[str, str], *, thresh: float, iou_thresh: float, points: int = 0
) -> tuple[Sequence[Path], Predictions, float]:
    """Print the original's lines about mAP, also used in training; return the images, the predictions and the mAP."""
    stdout("\n calculation mAP (mean average precision)...\n")
    images = read_list(images_list)
    read = TextLabels(read_difficult(Path(options["difficult"]), images) if "difficult" in options else {})
    print_heads(model.network.plan)
    nms = NmsOptions(conf=SCORE_THRESH, iou=NMS_THRESH, rank_above=SCORE_THRESH)
    predictions = _predicted(model, images, nms)
    labels = {index: _labels(read, image) for index, image in enumerate(images)}
    pairs = zip(predictions.indices, predictions.sizes_wh, strict=True)
    truths = [labels[index].ground_truth(size_wh) for index, size_wh in pairs]
    found = darknet_map(predictions.found[nms], truths, len(model.names), iou_thresh=iou_thresh, conf_thresh=thresh)
    head, counts, *rest = darknet_text(found, model.names, points).split("\n")
    total = len(found.ranked.scores)
    ranks = "".join(f" rank = {rank} of ranks = {total} \r" for rank in range(0, total, 100))
    stdout("\n".join([head, counts, ranks + rest[0], *rest[1:], _POINTS]))
    return images, predictions, found.mean_average_precision(points)


def _detector(words: Words, options: Mapping[str, str]) -> Detector:
    model = open_printed(words, options)
    if not isinstance(model, Detector):
        raise InputError(f"{words.words[3]}: has no boxes, expected a detector")
    return model


def recall(words: Words) -> None:
    """`detector recall DATA CFG WEIGHTS` (detector.c validate_detector_recall): recall of proposals of any class, by plain NMS."""
    options = read_data(words.at(2, "the .data file"))
    valid = option(options, "valid", "data/train.txt")
    model = _detector(words, options)
    preprocess = model.preprocessing(letter_box=False)
    read, images = TextLabels(), read_list(Path(valid))
    total = correct = proposals = unreadable = 0
    overlap = 0.0
    for number, image in enumerate(images):
        try:
            pixels, _ = preprocess(read_image(image))
        except InputError as error:
            unreadable += 1
            report_bad_image(str(image), error)
            continue
        with torch.inference_mode():
            (outputs,) = model.forward(torch.from_numpy(pixels)[None])
        found = model.candidates(outputs, 0.0)
        objectness = found.objectness * (found.objectness > 0.001)
        if model.network.plan.heads[-1].raw.name == "region":  # network.c custom_get_region_detections: 1 for every box
            objectness = torch.ones_like(objectness)
        kept = suppress(found.cxcywh_rel, objectness[:, None], 0.4)  # do_nms_obj: plain IoU, all classes together
        boxes = found.cxcywh_rel[kept.box_index]
        proposals += len(boxes)
        for truth in _labels(read, image).cxcywh_rel:
            total += 1
            best = float(iou(boxes, torch.tensor(truth, dtype=boxes.dtype)).max()) if len(boxes) else 0.0
            overlap += best
            correct += best > 0.5
        means = c_ratio(100 * overlap, total), c_ratio(100 * correct, total)
        stderr(f"{number:5d} {correct:5d} {total:5d}\tRPs/Img: {proposals / (number + 1):.2f}\t"
             f"IOU: {means[0]}%\tRecall:{means[1]}%")  # fmt: skip
    if unreadable:
        raise RunError(f"{unreadable} of {len(images)} images could not be read; bad.list names them")


_KITTI = ("car", "pedestrian", "cyclist")
_BDD = ("bike", "bus", "car", "motor", "person", "rider", "traffic light", "traffic sign", "train", "truck")
_Image = tuple[int, Path, tuple[int, int], Detections]  # number in the list, path, size, boxes in the original's order


def valid(words: Words) -> None:
    """`detector valid DATA CFG WEIGHTS` (detector.c validate_detector): result files in the format of eval=."""
    options = read_data(words.at(2, "the .data file"))
    images_of = option(options, "valid", "data/train.list")
    folder = Path(option(options, "results", "results"))
    if "map" in options:
        raise RunError(f"{words.words[2]}: map= (classes of another tree) is not supported")
    model = _detector(words, options)
    schedule = ScheduleOptions.from_raw(model.network.plan.cfg.sections[0])
    stderr(f"Learning Rate: {schedule.learning_rate:g}, Momentum: {schedule.momentum:g}, Decay: {schedule.decay:g}")
    images = read_list(Path(images_of))
    print_heads(model.network.plan)
    kind = option(options, "eval", "voc")
    if kind == "kitti":
        stdout(f"{words['-out'] or 'kitti_results'}\n")
    nms = NmsOptions(conf=0.001, iou=0.6, rank_above=0.001, in_pixels=True)
    predictions = _predicted(model, images, nms)
    rows = zip(predictions.indices, predictions.sizes_wh, predictions.found[nms], strict=True)
    found = [(index, images[index], size_wh, _listed(boxes)) for index, size_wh, boxes in rows]
    _WRITERS.get(kind, _write_voc)(folder, words["-out"], found, model.names)
    require_complete(images, predictions)


def _listed(found: Detections) -> Detections:
    """Sort by the original's order after NMS; the classes of a box by class id."""
    assert found.ranks is not None
    return found.select(np.lexsort((found.class_ids, found.ranks)))


def _clipped(xyxy: NDArray[np.float32], size_wh: tuple[int, int]) -> list[float]:
    """Return left, top, right, bottom in pixels, clipped to the image."""
    return [*np.maximum(xyxy[:2], 0).tolist(), *np.minimum(xyxy[2:], size_wh).tolist()]


def _write_coco(folder: Path, out: str | None, images: Sequence[_Image], names: Sequence[str]) -> None:
    """Write COCO's result list with its category ids; image_id is the number at the start of the file's name (atoi)."""
    entries = []
    for _, path, size_wh, found in images:
        number = re.match(r"\s*[+-]?\d+", base_name(path))
        if number is None:
            stderr(f"{path}: its name begins with no number, its image_id is 0")
        for box, score, class_id in found:
            x1, y1, x2, y2 = _clipped(box, size_wh)
            category = COCO_IDS[class_id] if class_id < len(COCO_IDS) else class_id + 1
            entries.append(
                f'{{"image_id":{int(number[0]) if number else 0}, "category_id":{category}, '
                f'"bbox":[{x1:f}, {y1:f}, {x2 - x1:f}, {y2 - y1:f}], "score":{score:f}}}'
            )
    write_text(folder / f"{out or 'coco_results'}.json", _json_list(entries))


def _json_list(entries: Sequence[str]) -> str:
    return "\n".join(["[", *([",\n".join(entries)] if entries else []), "]\n"])


def _write_bdd(folder: Path, out: str | None, images: Sequence[_Image], names: Sequence[str]) -> None:
    entries = [
        f'\t{{\n\t\t"name":"{path.name}",\n\t\t"category":"{_BDD[class_id]}",\n'
        f'\t\t"bbox":[{", ".join(f"{value:f}" for value in _clipped(box, size_wh))}],\n\t\t"score":{score:f}\n\t}}'
        for _, path, size_wh, found in images
        for box, score, class_id in found
    ]
    write_text(folder / f"{out or 'bdd_results'}.json", _json_list(entries))


def _write_kitti(folder: Path, out: str | None, images: Sequence[_Image], names: Sequence[str]) -> None:
    for _, path, size_wh, found in images:
        lines = [
            f"{_KITTI[class_id]} -1 -1 -10 {' '.join(f'{value:f}' for value in _clipped(box, size_wh))} "
            f"-1 -1 -1 -1000 -1000 -1000 -10 {score:f}\n"
            for box, score, class_id in found
        ]
        write_text(folder / (out or "kitti_results") / "data" / f"{base_name(path)}.txt", "".join(lines))


def _write_imagenet(folder: Path, out: str | None, images: Sequence[_Image], names: Sequence[str]) -> None:
    lines = [
        f"{number + 1} {class_id + 1} {score:f} {' '.join(f'{value:f}' for value in _clipped(box, size_wh))}\n"
        for number, _, size_wh, found in images
        for box, score, class_id in found
    ]
    write_text(folder / f"{out or 'imagenet-detection'}.txt", "".join(lines))


def _write_voc(folder: Path, out: str | None, images: Sequence[_Image], names: Sequence[str]) -> None:
    write_results(folder, (each[1:] for each in images), names, out or "comp4_det_test_")


_WRITERS: dict[str, Callable[[Path, str | None, Sequence[_Image], Sequence[str]], None]] = {
    "coco": _write_coco,
    "bdd": _write_bdd,
    "kitti": _write_kitti,
    "imagenet": _write_imagenet,
}


def calc_anchors(words: Words) -> None:
    """`detector calc_anchors DATA -num_of_clusters N -width W -height H [-show]` (detector.c calc_anchors)."""
    count, width, height = words["-num_of_clusters"], words["-width"], words["-height"]
    stdout(f"\n num_of_clusters = {count}, width = {width}, height = {height} \n")
    if width < 0 or height < 0:
        stdout("Usage: darknet detector calc_anchors data/voc.data -num_of_clusters 9 -width 416 -height 416 \n")
        stdout("Error: set width and height \n")
        raise InputError("-width and -height: expected the input size of the network in pixels")
    options = read_data(words.at(2, "the .data file"))
    images = read_list(Path(option(options, "train", "data/train.list")))
    counters = [0] * int(options.get("classes", "1"))
    sizes: list[tuple[float, float]] = []
    stdout(f" read labels from {len(images)} images \n")
    for number, image in enumerate(images, start=1):
        labels = _labels(TextLabels(), image)
        for line, (box, class_id) in enumerate(zip(labels.cxcywh_rel.tolist(), labels.class_ids.tolist(), strict=True)):
            if not all(0 < value <= 1 for value in box):
                x, y, w, h = box
                place = f"{original_label_path(image)} - j = {line}"
                text = f"Wrong label: {place}, x = {x:f}, y = {y:f}, width = {w:f}, height = {h:f}"
                stdout(f"\n\n{text} \n")
                append_line("bad_label.list", text)
            counters += [0] * (class_id + 1 - len(counters))
            counters[class_id] += 1
            sizes.append((box[2] * width, box[3] * height))
            stdout(f"\r loaded \t image: {number} \t box: {len(sizes)}")
    stdout("\n all loaded. \n\n calculating k-means++ ...\n")
    anchors = compute_anchors(sizes, count)
    stdout("\n iterations = 0 \n\n")
    text = f"counters_per_class = {', '.join(map(str, counters))}"
    stdout(f"\n{text}\n")
    write_text("counters_per_class.txt", text)
    stdout(f"\n avg IoU = {100 * anchor_fit(sizes, anchors).mean_iou:2.2f} % \n")
    digits = "{:3.0f},{:3.0f}" if width > 32 else "{:2.4f},{:2.4f}"
    text = ", ".join(digits.format(*anchor) for anchor in anchors.tolist())
    stdout(f"\nSaving anchors to the file: anchors.txt \nanchors = {text}\n")
    write_text("anchors.txt", text)
    if words["-show"]:
        cloud = _cloud(np.array(sizes), anchors, (width, height))
        save_image("cloud.png", cloud)
        show(cloud)


def _cloud(sizes: NDArray[np.float64], anchors: NDArray[np.float64], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw boxes as points in the colour of their anchor, and anchors as rectangles (image_opencv.cpp show_acnhors)."""
    side = 700
    image = np.zeros((side, side, 3), np.uint8)
    scale = side / np.array(size_wh)
    for size, cluster in zip(sizes, shape_iou(sizes, anchors).argmax(axis=1).tolist(), strict=True):
        x, y = (size * scale).astype(int).tolist()
        colour = tuple((cluster * factor + offset) % 255 for factor, offset in ((123, 55), (321, 33), (11, 99)))
        cv2.circle(image, (x, y), 1, colour, cv2.FILLED)
    for anchor in anchors:
        x, y = (anchor * scale).astype(int).tolist()
        cv2.rectangle(image, (0, 0), (x, y), (255, 255, 255), 1)
    return image
