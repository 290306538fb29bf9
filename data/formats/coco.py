"""COCO's JSON: images, categories and boxes of a split in one file."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from data.annotations import MALFORMED, Annotation, Finding
from utils.documents import parse_json
from utils.errors import InputError
from utils.files import read_text

Json = dict[str, Any]

_MOST = 1e15  # maximum number of pixels

# COCO's category ids of its 80 classes: 1 to 90 without those that were planned but never labelled.
COCO_IDS = tuple(i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


def is_coco(names: Sequence[str]) -> bool:
    """Return whether these are COCO's 80 classes, in COCO's or Darknet's spelling (sofa, tvmonitor, ...)."""
    return len(names) == len(COCO_IDS) and names[0] == "person" and names[-1] == "toothbrush"


def image_id_of(path: Path) -> int | None:
    """Return COCO's id of an image from its name: 42 for COCO_val2014_000000000042.jpg and 000000000042.jpg."""
    digits = path.stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else None


def read_json(path: Path) -> Json:
    """Read a COCO JSON file; annotations may be missing. Raises InputError."""
    content = parse_json(read_text(path, "annotation"), str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: is a JSON {type(content).__name__}, expected COCO's object with 'images'")
    for key in ("images", "annotations", "categories"):
        if key == "annotations" and key not in content:  # a test set, such as image_info_test-dev2017.json
            continue
        if not isinstance(content.get(key), list):
            raise InputError(f"{path}: no list '{key}', expected COCO's images, annotations and categories")
    return content


def parse_coco(
    content: Json, place: str, folder: Path
) -> tuple[list[Annotation], tuple[str, ...], tuple[int, ...], tuple[Finding, ...]]:
    """Return the labels of every image, class names, category ids, and findings.

    Class ids follow the order of the category ids, which maps COCO's ids up to 90 to its 80 classes.
    folder: base of relative `file_name`s.
    """
    categories = sorted(
        (entry["id"], str(entry.get("name", entry["id"])))
        for entry in content["categories"]
        if isinstance(entry, dict) and _is_id(entry.get("id"))
    )
    class_of = {category_id: i for i, (category_id, _) in enumerate(categories)}
    findings: list[Finding] = []
    images = _images(content["images"], place, findings)
    boxes_of: dict[int, list[tuple[list[float], int, bool, float]]] = defaultdict(list)
    for number, entry in enumerate(content.get("annotations", ())):
        try:
            image_id, row = _box(entry, images, class_of)
        except ValueError as error:
            text = f"annotations[{number}]: {error}"
            findings.append(Finding(kind=MALFORMED, place=place, text=text))
            continue
        boxes_of[image_id].append(row)
    annotations = []
    for image_id, (name, size_wh) in images.items():
        rows = boxes_of[image_id]
        annotations.append(
            Annotation.of(
                folder / name,
                [row[0] for row in rows],
                [row[1] for row in rows],
                crowd=[row[2] for row in rows],
                areas_px=[row[3] for row in rows],
                size_wh=size_wh,
                label_path=Path(place),
                image_id=image_id,
            )
        )
    names, ids = tuple(name for _, name in categories), tuple(category_id for category_id, _ in categories)
    return annotations, names, ids, tuple(findings)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MOST


def _images(entries: list[Any], place: str, findings: list[Finding]) -> dict[int, tuple[str, tuple[int, int]]]:
    images: dict[int, tuple[str, tuple[int, int]]] = {}
    for number, entry in enumerate(entries):
        problem = None
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            problem = "no integer 'id'"
        elif entry["id"] in images:
            problem = f"id {entry['id']} is listed twice"
        elif not isinstance(entry.get("file_name"), str):
            problem = "no 'file_name'"
        elif not all(_is_id(entry.get(key)) and entry[key] > 0 for key in ("width", "height")):
            problem = f"{entry['file_name']}: 'width' and 'height' must be integers above 0"
        if problem:
            findings.append(Finding(kind="malformed image entry", place=place, text=f"images[{number}]: {problem}"))
        else:
            images[entry["id"]] = (entry["file_name"], (entry["width"], entry["height"]))
    return images


def _box(
    entry: Any, images: dict[int, tuple[str, tuple[int, int]]], class_of: dict[int, int]
) -> tuple[int, tuple[list[float], int, bool, float]]:
    """Return image id and (cxcywh_rel, class id, crowd, area). Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError("is not an object")
    image_id, category_id, bbox = entry.get("image_id"), entry.get("category_id"), entry.get("bbox")
    if not _is_id(image_id) or image_id not in images:
        raise ValueError(f"image_id {image_id!r} is not among the images")
    if not _is_id(category_id) or category_id not in class_of:
        raise ValueError(f"category_id {category_id!r} is not among the categories")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise ValueError(f"bbox: cannot read {bbox!r}, expected [x, y, width, height] in pixels")
    width, height = images[image_id][1]
    x, y, w, h = bbox
    cxcywh = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    area = entry.get("area")
    return image_id, (
        cxcywh,
        class_of[category_id],
        bool(entry.get("iscrowd")),
        float(area) if _is_number(area) else math.nan,
    )


def format_coco(
    annotations: Iterable[tuple[Annotation, tuple[int, int]]],
    names: Sequence[str],
    category_ids: Sequence[int] | None,
    folder: Path,
) -> str:
    """Return the text of a COCO JSON file. Images below `folder` are named relative to it; images without ids are numbered.

    Difficult objects become ordinary ones, as the format has no such flag. Coordinates are rounded to 1e-9 pixels.
    """
    ids = list(category_ids) if category_ids else list(range(1, len(names) + 1))
    pairs = list(annotations)
    own_ids = all(_is_id(annotation.image_id) for annotation, _ in pairs)
    images: list[Json] = []
    boxes: list[Json] = []
    for number, (annotation, (width, height)) in enumerate(pairs, 1):
        image_id = annotation.image_id if own_ids else number
        path = annotation.image
        name = path.relative_to(folder) if path.is_relative_to(folder) else path.absolute()
        images.append({"id": image_id, "file_name": name.as_posix(), "width": width, "height": height})
        for (cx, cy, w, h), class_id, crowd, area in zip(
            annotation.cxcywh_rel.tolist(),
            annotation.class_ids.tolist(),
            annotation.crowd.tolist(),
            annotation.areas_px.tolist(),
            strict=True,
        ):
            bbox = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image_id,
                    "category_id": ids[class_id],
                    "bbox": [round(value, 9) for value in bbox],
                    "area": round(bbox[2] * bbox[3] if math.isnan(area) else area, 9),
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": category_id, "name": name} for category_id, name in zip(ids, names, strict=True)]
    return json.dumps({"images": images, "annotations": boxes, "categories": categories}, ensure_ascii=False) + "\n"


SPLITS = ("train", "val", "test")
_PATTERNS = (
    "instances*.json",
    "annotations/instances*.json",
    "*/_annotations.coco.json",
    "_annotations.coco.json",
    "result.json",
)


def split_of(path: Path) -> str | None:
    """Return the split from the file or folder name: instances_val2017.json, valid/_annotations.coco.json."""
    for name in (path.stem, path.parent.name):
        for split in SPLITS:
            if re.search(rf"(?<![a-z]){split}", name.lower()) or split.capitalize() in name:
                return split
    return None


def annotation_files(folder: Path) -> tuple[Path, ...]:
    """Return the COCO JSON files in a folder, by their usual names."""
    return tuple(path for pattern in _PATTERNS for path in sorted(folder.glob(pattern)))


def choose(files: Sequence[Path], split: str | None, fallbacks: Sequence[str]) -> Path:
    """Return the file of a split or of the first of `fallbacks`, or the only file. Raises InputError if it is ambiguous.

    split: None for all of them.
    """
    for wanted in (split, *fallbacks):
        found = [path for path in files if split_of(path) == wanted]
        if len(found) == 1:
            return found[0]
    if len(files) == 1:
        return files[0]
    listed = ", ".join(str(path) for path in files)
    raise InputError(f"several annotation files{f' for split {split!r}' if split else ''}, pass one of {listed}")
