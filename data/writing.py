"""Writing of data sets in Darknet, COCO, Ultralytics and Pascal VOC format."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from data.annotations import Annotation, Dataset
from data.formats import coco, darknet, ultralytics, voc
from data.image import image_size
from utils.errors import InputError, RunError
from utils.files import atomic_write, exists, is_folder, make_folder, sync_folder, write_text

logger = logging.getLogger(__name__)

Splits = Mapping[str, list[Annotation]]


@dataclass(frozen=True)
class Conversion:
    """A written data set. not_converted: number of labels that the format cannot express, by kind."""

    files: tuple[Path, ...]
    images: int
    labels: int
    not_converted: Mapping[str, int]


def write_data(dataset: Dataset, target: str | Path, *, copy: bool = False) -> Conversion:
    """Write a data set to `target`: `.data` (Darknet), `.json` (COCO), `.yaml` (Ultralytics), or a folder (Pascal VOC).

    Formats with labels next to the images get links to the images, or copies with `copy`. Raises InputError for an
    unknown extension or a target that exists, RunError if it cannot be written.
    """
    target = Path(target)
    writers: dict[str, Callable[[Dataset, Splits, Path, bool], list[Path]]] = {
        ".data": _write_darknet,
        ".json": _write_coco,
        ".yaml": _write_ultralytics,
        ".yml": _write_ultralytics,
        "": _write_voc,
    }
    if target.suffix.lower() not in writers:
        raise InputError(f"{target}: unknown dataset format, expected .data, .json, .yaml or a folder (Pascal VOC)")
    for path in (target, *_json_files(target, dataset.splits).values()):
        if exists(path) and not (is_folder(path) and not any(path.iterdir())):
            raise InputError(f"{path}: already exists, expected a new name")
    splits = {split: list(dataset.annotations(split)) for split in dataset.splits}
    annotations = _all(splits)
    if not dataset.names and any(len(annotation.class_ids) for annotation in annotations):
        raise InputError(f"{dataset.source}: has labels but no class names, expected a names file (--names)")
    for finding in (*dataset.findings, *(f for annotation in annotations for f in annotation.findings)):
        if finding.kind != "labels missing":
            logger.warning("%s", finding)
    classes, suffix = len(dataset.names), target.suffix.lower()
    kept = {split: [labels.select(labels.class_ids < classes) for labels in splits[split]] for split in splits}
    files = writers[suffix](dataset, kept, target, copy)
    not_converted = _not_converted(suffix, splits, classes)
    left_out = sum(count for what, count in not_converted.items() if what.endswith("left out"))
    return Conversion(
        files=tuple(files),
        images=len(annotations),
        labels=sum(map(len, annotations)) - left_out,
        not_converted={what: count for what, count in not_converted.items() if count},
    )


def _not_converted(suffix: str, splits: Splits, classes: int) -> dict[str, int]:
    """Return the number of labels that the format cannot express, by kind."""
    difficult = {split: sum(int(a.difficult.sum()) for a in images) for split, images in splits.items()}
    annotations = _all(splits)
    counts = {
        "boxes with a class id beyond the names, left out": sum(
            int((a.class_ids >= classes).sum()) for a in annotations
        )
    }
    if suffix == ".json":
        counts["difficult boxes, ordinary now"] = sum(difficult.values())
    else:
        counts["crowd boxes, left out"] = sum(int(a.crowd.sum()) for a in annotations)
    if suffix in (".yaml", ".yml"):
        counts["difficult boxes, left out"] = sum(difficult.values())
    if suffix == ".data":
        counts["difficult boxes outside the split 'val', left out"] = sum(difficult.values()) - difficult.get("val", 0)
    return counts


def _size_of(annotation: Annotation) -> tuple[int, int]:
    return annotation.size_wh or image_size(annotation.image)


def _link_images(annotations: Iterable[Annotation], folder: Path, copy: bool) -> dict[Path, Path]:
    """Link or copy every image into `folder` and return the new paths; images of the same name get a number."""
    places: dict[Path, Path] = {}
    taken: set[str] = set()
    for annotation in annotations:
        image = annotation.image
        if image in places:
            continue
        stem, number = image.stem, 1
        while stem in taken:
            number += 1
            stem = f"{image.stem}_{number}"
        taken.add(stem)
        places[image] = folder / f"{stem}{image.suffix}"
    try:
        make_folder(folder)
        for image, place in places.items():
            if copy:
                with image.open("rb") as source, atomic_write(place, durable=False) as target:
                    shutil.copyfileobj(source, target)
            elif not (place.is_symlink() and place.readlink() == image.resolve()):  # left by a killed conversion
                place.symlink_to(image.resolve())
        sync_folder(folder)
    except OSError as error:
        hint = "" if copy else " (--copy makes copies instead of links)"
        raise RunError(
            f"{error.filename}: image cannot be linked or copied to {folder}: {error.strerror}{hint}"
        ) from error
    return places


def _all(splits: Splits) -> list[Annotation]:
    return [annotation for annotations in splits.values() for annotation in annotations]


def _write_each(texts: Iterable[tuple[Path, str]]) -> None:
    """Write text files and flush all of them to the disk."""
    folders = set()
    for path, text in texts:
        write_text(path, text, durable=False)
        folders.add(path.parent)
    for folder in folders:
        sync_folder(folder)


def _write_darknet(dataset: Dataset, splits: Splits, target: Path, copy: bool) -> list[Path]:
    """Write labels next to the images, where the original finds them too."""
    folder = target.parent.resolve()
    places = _link_images(_all(splits), folder / target.stem, copy)
    _write_each(
        (places[annotation.image].with_suffix(".txt"), darknet.format_labels(annotation)) for annotation in _all(splits)
    )
    names = folder / f"{target.stem}.names"
    write_text(names, darknet.format_list(dataset.names))
    options = {"classes": str(len(dataset.names))}
    files = [target, names]
    key_of = {"val": "valid", "all": "train"}
    for split, images in splits.items():
        key = key_of.get(split, split)
        path = folder / f"{target.stem}_{key}.txt"
        write_text(path, darknet.format_list(places[image.image] for image in images))
        options[key] = str(path)
        files.append(path)
    if any(annotation.difficult.any() for annotation in splits.get("val", ())):
        hard = _write_difficult(splits["val"], places, folder, target.stem)
        options["difficult"] = str(hard)
        files.append(hard)
    options["names"] = str(names)
    options["backup"] = str(folder / "backup")
    write_text(target, darknet.format_data(options))
    return files


def _write_difficult(annotations: list[Annotation], places: Mapping[Path, Path], folder: Path, stem: str) -> Path:
    paths = [folder / f"{stem}_difficult" / f"{places[annotation.image].stem}.txt" for annotation in annotations]
    texts = (darknet.format_labels(annotation, difficult=True) for annotation in annotations)
    _write_each(zip(paths, texts, strict=True))
    target = folder / f"{stem}_difficult.txt"
    write_text(target, darknet.format_list(paths))
    return target


def _write_coco(dataset: Dataset, splits: Splits, target: Path, _: bool) -> list[Path]:
    """Write one JSON file per split."""
    files = _json_files(target, splits)
    for split, images in splits.items():
        sized = ((image, _size_of(image)) for image in images)
        write_text(files[split], coco.format_coco(sized, dataset.names, dataset.category_ids, target.parent))
    return list(files.values())


def _json_files(target: Path, splits: Collection[str]) -> dict[str, Path]:
    """Return the file of each split; if there are several, the split's name precedes the extension."""
    if target.suffix.lower() != ".json":
        return {}
    several = len(splits) > 1
    return {each: target.with_name(f"{target.stem}_{each}{target.suffix}") if several else target for each in splits}


def _write_ultralytics(dataset: Dataset, splits: Splits, target: Path, copy: bool) -> list[Path]:
    root = target.parent / target.stem
    places = _link_images(_all(splits), root / "images", copy)
    _write_each(
        (
            root / "labels" / f"{places[annotation.image].stem}.txt",
            darknet.format_labels(annotation.select(~annotation.difficult)),
        )
        for annotation in _all(splits)
    )
    files, lists = [target], {}
    for split, images in splits.items():
        key = "train" if split == "all" else split
        if key not in ultralytics.SPLITS:
            logger.warning("%s: the format has no split '%s', its list is not written", target, split)
            continue
        path = root / f"{key}.txt"
        write_text(path, darknet.format_list(f"./images/{places[image.image].name}" for image in images))
        files.append(path)
        lists[key] = [path.name]
    write_text(target, ultralytics.format_yaml(dataset.names, lists, root.name))
    return files


def _write_voc(dataset: Dataset, splits: Splits, target: Path, copy: bool) -> list[Path]:
    places = _link_images(_all(splits), target / "JPEGImages", copy)
    annotations = _all(splits)
    moved = [replace(annotation, image=places[annotation.image]) for annotation in annotations]
    sizes = map(_size_of, annotations)
    _write_each(
        (
            target / "Annotations" / f"{annotation.image.stem}.xml",
            voc.format_annotation(annotation, size_wh, dataset.names),
        )
        for annotation, size_wh in zip(moved, sizes, strict=True)
    )
    files = []
    for split, images in splits.items():
        path = target / "ImageSets" / "Main" / f"{split}.txt"
        write_text(path, darknet.format_list(places[image.image].stem for image in images))
        files.append(path)
    write_text(target / "classes.names", darknet.format_list(dataset.names))
    return [*files, target / "classes.names"]
