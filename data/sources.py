"""Opening of data sets in any format, detected by extension and content."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from data.annotations import Annotation, Dataset, Finding
from data.formats import coco, darknet, ultralytics, voc
from data.formats.classification import SPLIT_FOLDERS, is_cifar, read_class_folders, split_folders, unpack_cifar
from data.formats.coco import annotation_files, choose, split_of
from data.image import IMAGE_SUFFIXES
from utils.errors import InputError
from utils.files import exists, is_file, is_folder, read_text

logger = logging.getLogger(__name__)

DATA_SPLITS = {"train": "train", "valid": "val", "test": "test", "trainval": "trainval"}
ONLY_SPLIT = "all"
_NAMES_FILES = ("classes.txt", "_darknet.labels", "obj.names")  # of labelImg and Label Studio, Roboflow, CVAT
# Replacements for a missing split. The original also evaluates on `train` if there is no `valid`.
_FALLBACKS = {"val": ("test", ONLY_SPLIT, "train"), "test": ("val", ONLY_SPLIT), "train": ("trainval", ONLY_SPLIT)}


def open_data(path: str | Path, split: str | None = None, *, names: str | Path | None = None) -> Dataset:
    """Open the data set at `path`, or only one split of it. Raises InputError.

    Formats: `.data` (Darknet), `.yaml` (Ultralytics), `.json` (COCO), a folder with Annotations (Pascal VOC) or with COCO's
    JSON files (only that of `split` is read), a folder with ImageNet's layout (split/class/image) or with CIFAR-10's
    batches, a folder of images as labelling tools export it, or a `.txt` list of images. A missing split is replaced by
    a similar one, with a warning.
    names: a names file that replaces the data set's own.
    """
    path = Path(path)
    own_names = darknet.read_names(names) if names is not None else None
    try:
        files = annotation_files(path) if is_folder(path) else ()
        if split is None and len(files) > 1:
            return _joined(path, [_open_coco(file, own_names) for file in files])
        if files:
            path = choose(files, split, _FALLBACKS.get(split or "", ()))
        dataset = _opener(path, split)(path, own_names)
    except OSError as error:  # a folder without permission, or a failing disk
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from None
    return dataset if split is None else _only(dataset, split)


def _opener(path: Path, split: str | None) -> Callable[[Path, tuple[str, ...] | None], Dataset]:
    by_suffix: dict[str, Callable[[Path, tuple[str, ...] | None], Dataset]] = {
        ".data": partial(_open_darknet, split=split),
        ".yaml": partial(_open_ultralytics, split=split),
        ".yml": partial(_open_ultralytics, split=split),
        ".json": _open_coco,
        ".txt": _open_list,
    }
    if is_folder(path):
        if is_cifar(path) or split_folders(path):
            return _open_class_folders
        voc_folders = is_folder(path / "Annotations") and is_folder(path / "JPEGImages")
        if voc_folders:
            return _open_voc
        return partial(_open_folder, split=split)
    if not exists(path):
        raise InputError(f"{path}: no such dataset")
    if path.suffix.lower() not in by_suffix:
        raise InputError(
            f"{path}: unknown dataset format, expected {', '.join(by_suffix)}, or a folder (Pascal VOC, COCO, ImageNet, "
            "CIFAR-10, images)"
        )
    return by_suffix[path.suffix.lower()]


def hold_out(dataset: Dataset, fraction: float) -> Dataset:
    """Return the data set with a random `fraction` of its images, the same each time, as the split "val".

    Raises InputError if it has that split, or too few images.
    """
    name = "train" if "train" in dataset.splits else ONLY_SPLIT
    if "val" in dataset.splits or name not in dataset.splits:
        raise InputError(f"{dataset.source}: has the splits {', '.join(dataset.splits)}, expected no 'val'")
    images = list(dict.fromkeys(dataset.splits[name]))
    count = max(1, round(fraction * len(images)))
    if count >= len(images):
        raise InputError(f"{dataset.source}: {len(images)} images are too few to hold out a part for validation")
    held = {images[i] for i in np.random.default_rng(0).permutation(len(images))[:count]}
    train, val = (tuple(each for each in dataset.splits[name] if (each in held) == out) for out in (False, True))
    others = {split: images for split, images in dataset.splits.items() if split != name}
    return replace(dataset, splits={"train": train, "val": val, **others})


def _only(dataset: Dataset, split: str) -> Dataset:
    splits = dataset.splits
    chosen = _choice(splits, split)
    if chosen is None:
        raise InputError(f"{dataset.source}: no split '{split}', expected one of {', '.join(splits)}")
    if chosen not in (split, ONLY_SPLIT):
        logger.warning("%s: no split '%s', using '%s'", dataset.source, split, chosen)
    return replace(dataset, splits={split: splits[chosen]})


def _choice(splits: Collection[str], split: str) -> str | None:
    """Return `split`, the split that replaces it, or None."""
    return split if split in splits else next((each for each in _FALLBACKS.get(split, ()) if each in splits), None)


def _to_read(splits: Collection[str], split: str | None) -> Collection[str]:
    """Return the splits whose images are needed for `split`: the others may be missing, and take time to list."""
    chosen = None if split is None else _choice(splits, split)
    return splits if chosen is None else (chosen,)


def images_in(folder: Path) -> tuple[Path, ...]:
    """Return all images below a folder, sorted by path. Raises InputError if there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no images, expected files such as .jpg or .png")
    return tuple(found)


def _list_or_folder(path: Path) -> tuple[Path, ...]:
    return images_in(path) if is_folder(path) else darknet.read_list(path)


def _open_darknet(path: Path, names: tuple[str, ...] | None, split: str | None) -> Dataset:
    """Open a `.data` file; its entries are relative to the working directory, as in the original, its folder or the parent."""
    options = darknet.read_data(path)

    def find(key: str) -> Path:
        return darknet.first_existing(darknet.candidates(options[key], path.parent), f"{path}: {key}")

    # Text that identifies each class in image paths (classifier.c train_classifier).
    labels = darknet.read_names(find("labels")) if "labels" in options else ()
    if names is None:
        names = labels if labels and "names" not in options else darknet.read_names(path)
    if labels and len(labels) != len(names):
        raise InputError(f"{path}: {len(labels)} labels and {len(names)} names, expected the same number")
    keys = {each: key for key, each in DATA_SPLITS.items() if key in options}
    splits = {each: _list_or_folder(find(keys[each])) for each in _to_read(keys, split)}
    if not splits:
        raise InputError(f"{path}: none of {', '.join(DATA_SPLITS)}, expected at least one list of images")
    difficult: dict[Path, Path] = {}
    if "difficult" in options and (split is None or "val" in splits):
        difficult = darknet.read_difficult(find("difficult"), splits.get("val", ()))
    findings: tuple[Finding, ...] = ()
    if (count := options.get("classes", str(len(names)))) != str(len(names)):
        text = f"classes is {count}, but there are {len(names)} names; the names determine the classes"
        findings = (Finding(kind="class count", place=str(path), text=text),)
    return Dataset(
        source=path,
        names=names,
        splits=splits,
        read=darknet.TextLabels(difficult),
        path_labels=labels,
        options=options,
        findings=findings,
    )


def _open_list(path: Path, names: tuple[str, ...] | None) -> Dataset:
    splits = {ONLY_SPLIT: darknet.read_list(path)}
    return Dataset(source=path, names=names or (), splits=splits, read=darknet.TextLabels())


def _open_folder(path: Path, names: tuple[str, ...] | None, split: str | None) -> Dataset:
    """Open a folder as labelling tools export it.

    It has data.yaml or a `.data` file, or images (all of them, or in folders such as train and valid) with Darknet's or
    Pascal VOC's labels.
    """
    described = [each for each in (*sorted(path.glob("*.data")), path / "data.yaml") if is_file(each)]
    if len(described) == 1:
        return _opener(described[0], split)(described[0], names)
    splits, findings = _splits_of_folder(path)
    images = [image for each in splits.values() for image in each]
    names = names or _names_in(path)
    xml: list[Path] = []
    if not any(exists(each) for image in images for each in darknet.label_candidates(image)):
        xml = [each for image in images for each in voc.label_candidates(image) if exists(each)]
    if not xml:
        return Dataset(source=path, names=names, splits=splits, read=darknet.TextLabels(), findings=findings)
    names = names or tuple(sorted(_names_in_xml(xml)))
    return Dataset(source=path, names=names, splits=splits, read=voc.XmlLabels(None, names), findings=findings)


def _splits_of_folder(path: Path) -> tuple[dict[str, tuple[Path, ...]], tuple[Finding, ...]]:
    """Return the images of each split, by the folders train, valid and test in `path` or in `path`/images."""
    images = images_in(path)
    for parent in (path, path / "images"):
        folders = {split: parent / name for name, split in SPLIT_FOLDERS.items() if is_folder(parent / name)}
        if "train" in folders:
            splits = {
                split: tuple(each for each in images if folder in each.parents) for split, folder in folders.items()
            }
            unused = len(images) - sum(map(len, splits.values()))
            text = (
                f"{unused} of {len(images)} images outside of {', '.join(str(folder) for folder in folders.values())}"
            )
            outside = Finding(kind="images outside the splits", place=str(path), text=text)
            return {split: each for split, each in splits.items() if each}, (outside,) * bool(unused)
    return {ONLY_SPLIT: images}, ()


def _names_in(folder: Path) -> tuple[str, ...]:
    """Return the class names that a labelling tool saved in a folder of images; none if there are none."""
    folders = (folder, folder / "train", folder / "labels", *(folder.parent,) * (folder.name == "images"))
    files = (each / name for each in folders for name in _NAMES_FILES)
    return next((darknet.read_names(each) for each in files if is_file(each)), ())


def _names_in_xml(files: Iterable[Path]) -> set[str]:
    return {name for path in files for name in voc.names_in(path.read_bytes())}


def _open_class_folders(path: Path, names: tuple[str, ...] | None) -> Dataset:
    path = unpack_cifar(path) if is_cifar(path) else path
    found = read_class_folders(path)
    if names is not None and len(names) != len(found.names):
        raise InputError(
            f"{path}: {len(found.names)} folders of classes and {len(names)} names, expected the same number"
        )
    return Dataset(
        source=path,
        names=names or found.names,
        splits=found.splits,
        read=darknet.TextLabels(),
        path_labels=found.labels,
    )


def _open_ultralytics(path: Path, names: tuple[str, ...] | None, split: str | None) -> Dataset:
    own_names, entries, root = ultralytics.parse_yaml(read_text(path, "yaml"), str(path))
    bases = (path.parent / root, Path(root))
    if names is not None and len(names) != len(own_names):
        raise InputError(f"{path}: has {len(own_names)} names and --names {len(names)}, expected the same number")
    splits = {}
    for each in _to_read(entries, split):
        # Roboflow writes ../train/images for the folder train next to the file.
        tried = [
            tuple(base / written for written in (place, place.removeprefix("../")) for base in bases)
            for place in entries[each]
        ]
        found = (
            _list_or_folder(darknet.first_existing(list(dict.fromkeys(paths)), f"{path}: {each}")) for paths in tried
        )
        splits[each] = tuple(image for images in found for image in images)
    return Dataset(source=path, names=names or own_names, splits=splits, read=darknet.TextLabels())


def _open_coco(path: Path, names: tuple[str, ...] | None) -> Dataset:
    content = coco.read_json(path)
    annotations, own_names, ids, findings = coco.parse_coco(content, str(path), _coco_folder(path, content))
    if names is not None and len(names) != len(own_names):
        raise InputError(f"{path}: {len(own_names)} categories and {len(names)} names, expected the same number")
    return Dataset(
        source=path,
        names=names or own_names,
        splits={split_of(path) or ONLY_SPLIT: tuple(annotation.image for annotation in annotations)},
        read={annotation.image: annotation for annotation in annotations}.__getitem__,
        category_ids=ids,
        labelled="annotations" in content,
        findings=findings,
    )


def _joined(source: Path, parts: Sequence[Dataset]) -> Dataset:
    """Join data sets of one split each. Raises InputError if two have the same split or their classes differ."""
    first, splits = parts[0], [split for part in parts for split in part.splits]
    if len(set(splits)) < len(parts):
        listed = ", ".join(str(part.source) for part in parts)
        raise InputError(f"{source}: several annotation files for a split, pass one of {listed}")
    for part in parts:
        if (part.names, part.category_ids) != (first.names, first.category_ids):
            raise InputError(f"{part.source}: the categories are not those of {first.source}, expected the same")
    readers = {image: part.read for part in parts for images in part.splits.values() for image in images}
    return replace(
        first,
        source=source,
        splits={split: images for part in parts for split, images in part.splits.items()},
        read=partial(_read_by, readers),
        labelled=all(part.labelled for part in parts),
        findings=tuple(finding for part in parts for finding in part.findings),
    )


def _read_by(readers: Mapping[Path, Callable[[Path], Annotation]], image: Path) -> Annotation:
    return readers[image](image)


def _coco_folder(path: Path, content: coco.Json) -> Path:
    """Return the folder with the images of a JSON file: its own or one of COCO's usual ones; its own if none has them."""
    tail = path.stem.rpartition("_")[2]
    here, above = path.parent, path.parent.parent
    folders = [here, here / tail, here / "images", above / tail, above / "images" / tail, above / "images", above]
    first = next((image.get("file_name") for image in content["images"] if isinstance(image, dict)), None)
    if not isinstance(first, str):
        return here
    return next((folder for folder in folders if exists(folder / first)), here)


def _open_voc(path: Path, names: tuple[str, ...] | None) -> Dataset:
    annotations = path / "Annotations"
    images = {image.stem: image for image in images_in(path / "JPEGImages")}
    sets = voc.read_sets(path) if is_folder(path / "ImageSets" / "Main") else {ONLY_SPLIT: tuple(images)}
    own_names = path / "classes.names"
    if names is None and is_file(own_names):
        names = darknet.read_names(own_names)
    if names is None:
        names = voc.order_names(_names_in_xml(annotations.glob("*.xml")))
    splits = {
        split: tuple(images.get(stem, path / "JPEGImages" / f"{stem}.jpg") for stem in stems)
        for split, stems in sets.items()
    }
    return Dataset(source=path, names=names, splits=splits, read=voc.XmlLabels(annotations, names))
