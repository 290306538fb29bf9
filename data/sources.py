"""Opening a data set by its path: what kind it is follows from the extension and the content."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from data.annotations import Annotation, Dataset, Finding
from data.formats import coco, darknet, ultralytics, voc
from data.formats.coco import annotation_files, choose, split_of
from data.image import IMAGE_SUFFIXES
from utils.errors import InputError
from utils.files import read_text

logger = logging.getLogger(__name__)

DATA_SPLITS = {"train": "train", "valid": "val", "test": "test", "trainval": "trainval"}
ONLY_SPLIT = "all"
# What stands in for a split that a data set lacks. The original too evaluates on `train` where there is no `valid`.
_STAND_INS = {"val": ("test", ONLY_SPLIT, "train"), "test": ("val", ONLY_SPLIT), "train": ("trainval", ONLY_SPLIT)}


class LoadedLabels:
    """Labels that were read all at once (COCO json), by image."""

    def __init__(self, annotations: Iterable[Annotation]) -> None:
        self._by_image = {annotation.image: annotation for annotation in annotations}

    def __call__(self, image: Path) -> Annotation:
        return self._by_image[image]


def open_data(path: str | Path, split: str | None = None, *, names: str | Path | None = None) -> Dataset:
    """Descriptor of the data set at `path`; with `split` it holds that split alone.

    `.data` (Darknet), `.yaml` (Ultralytics), `.json` (COCO), a folder with Annotations (Pascal VOC) or with COCO's json
    files (that of the split is read alone), a folder or a `.txt` list of images. `names`: a names file that takes the
    place of the data set's own.
    A split that is not there is stood in for by another, with a warning. Raises InputError.
    """
    path = Path(path)
    if path.is_dir() and (files := annotation_files(path)):
        path = choose(files, split, _STAND_INS.get(split or "", ()))
    own_names = darknet.read_names(names) if names is not None else None
    dataset = _opener(path)(path, own_names)
    return dataset if split is None else _only(dataset, split)


def _opener(path: Path) -> Callable[[Path, tuple[str, ...] | None], Dataset]:
    by_suffix = {
        ".data": _open_darknet,
        ".yaml": _open_ultralytics,
        ".yml": _open_ultralytics,
        ".json": _open_coco,
        ".txt": _open_list,
    }
    if path.is_dir():
        return _open_voc if (path / "Annotations").is_dir() else _open_folder
    if not path.exists():
        raise InputError(f"{path}: no such data set")
    if path.suffix.lower() not in by_suffix:
        raise InputError(
            f"{path}: unknown kind of data set, expected {', '.join(by_suffix)}, a Pascal VOC folder or one of images"
        )
    return by_suffix[path.suffix.lower()]


def _only(dataset: Dataset, split: str) -> Dataset:
    splits = dataset.splits
    chosen = split if split in splits else next((s for s in _STAND_INS.get(split, ()) if s in splits), None)
    if chosen is None:
        raise InputError(f"{dataset.source}: no split '{split}', expected one of {', '.join(splits)}")
    if chosen not in (split, ONLY_SPLIT):
        logger.warning("%s: no split '%s', '%s' is used instead", dataset.source, split, chosen)
    return _with_splits(dataset, {split: splits[chosen]})


def _with_splits(dataset: Dataset, splits: Mapping[str, tuple[Path, ...]]) -> Dataset:
    return replace(dataset, splits=splits)


def images_in(folder: Path) -> tuple[Path, ...]:
    """Every image below a folder, sorted by path. Raises InputError when there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no images, expected files such as .jpg or .png")
    return tuple(found)


def _first_existing(entry: str, bases: Iterable[Path], what: str) -> Path:
    tried = list(dict.fromkeys(base / entry for base in bases))
    for path in tried:
        if path.exists():
            return path
    raise InputError(f"{what}: no such file or folder; tried {', '.join(map(str, tried))}")


def _list_or_folder(path: Path) -> tuple[Path, ...]:
    return images_in(path) if path.is_dir() else darknet.read_list(path)


def _open_darknet(path: Path, names: tuple[str, ...] | None) -> Dataset:
    """`.data`: entries are meant from the working folder (the original), the file's folder or the one above it."""
    options = darknet.parse_data(read_text(path, "data", paths=True), str(path))
    bases = (Path(), path.parent, path.parent.parent)
    labels = _path_labels(path, options, bases)
    if labels and "names" not in options:
        names = names or labels
    names, findings = _data_names(path, options, names, bases)
    if labels and len(labels) != len(names):
        raise InputError(
            f"{path}: {len(labels)} labels and {len(names)} names, expected as many of one as of the other"
        )
    splits = {
        split: _list_or_folder(_first_existing(options[key], bases, f"{path}: {key}"))
        for key, split in DATA_SPLITS.items()
        if key in options
    }
    if not splits:
        raise InputError(f"{path}: none of {', '.join(DATA_SPLITS)}, expected a list of images")
    difficult: dict[Path, Path] = {}
    if "difficult" in options:
        hard = darknet.read_list(_first_existing(options["difficult"], bases, f"{path}: difficult"))
        valid = splits.get("val", ())
        if len(hard) != len(valid):
            raise InputError(f"{path}: difficult has {len(hard)} lines, expected {len(valid)} as in valid")
        difficult = {image: darknet.label_candidates(entry)[-1] for image, entry in zip(valid, hard, strict=True)}
    return Dataset(
        kind="darknet",
        source=path,
        names=names,
        splits=splits,
        read=darknet.TextLabels(difficult),
        path_labels=labels,
        options=options,
        findings=findings,
    )


def _path_labels(path: Path, options: Mapping[str, str], bases: Iterable[Path]) -> tuple[str, ...]:
    """What classifiers look for in paths, where it is not the names (classifier.c train_classifier, key labels)."""
    if "labels" not in options:
        return ()
    return darknet.read_names(_first_existing(options["labels"], bases, f"{path}: labels"))


def _data_names(
    path: Path, options: Mapping[str, str], names: tuple[str, ...] | None, bases: Iterable[Path]
) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    if names is None:
        if "names" not in options:
            raise InputError(f"{path}: no 'names', expected names = <file with one class name a line>")
        names = darknet.read_names(_first_existing(options["names"], bases, f"{path}: names"))
    count = options.get("classes", str(len(names)))
    if count != str(len(names)):
        text = f"classes is {count}, but there are {len(names)} names; the names count"
        return names, (Finding(kind="class count", place=str(path), text=text),)
    return names, ()


def _open_list(path: Path, names: tuple[str, ...] | None) -> Dataset:
    return Dataset(
        kind="images",
        source=path,
        names=names or (),
        splits={ONLY_SPLIT: darknet.read_list(path)},
        read=darknet.TextLabels(),
    )


def _open_folder(path: Path, names: tuple[str, ...] | None) -> Dataset:
    splits = {ONLY_SPLIT: images_in(path)}
    return Dataset(kind="images", source=path, names=names or (), splits=splits, read=darknet.TextLabels())


def _open_ultralytics(path: Path, names: tuple[str, ...] | None) -> Dataset:
    own_names, entries, root = ultralytics.parse_yaml(read_text(path, "yaml"), str(path))
    bases = [path.parent / root, Path(root)]
    splits = {}
    for split, places in entries.items():
        found = (_list_or_folder(_first_existing(place, bases, f"{path}: {split}")) for place in places)
        splits[split] = tuple(image for images in found for image in images)
    return Dataset(kind="ultralytics", source=path, names=names or own_names, splits=splits, read=darknet.TextLabels())


def _open_coco(path: Path, names: tuple[str, ...] | None) -> Dataset:
    content = coco.read_json(path)
    annotations, own_names, ids, findings = coco.parse_coco(content, str(path), _coco_folder(path, content))
    return Dataset(
        kind="coco",
        source=path,
        names=names or own_names,
        splits={split_of(path) or ONLY_SPLIT: tuple(annotation.image for annotation in annotations)},
        read=LoadedLabels(annotations),
        category_ids=ids,
        findings=findings,
    )


def _coco_folder(path: Path, content: coco.Json) -> Path:
    """Where the images of a json are: beside it, or in one of COCO's usual folders; its own folder if nowhere."""
    tail = path.stem.rpartition("_")[2]
    here, above = path.parent, path.parent.parent
    folders = [here, here / tail, here / "images", above / tail, above / "images" / tail, above / "images", above]
    first = next((image.get("file_name") for image in content["images"] if isinstance(image, dict)), None)
    if not isinstance(first, str):
        return here
    return next((folder for folder in folders if (folder / first).exists()), here)


def _open_voc(path: Path, names: tuple[str, ...] | None) -> Dataset:
    annotations = path / "Annotations"
    images = {image.stem: image for image in images_in(path / "JPEGImages")}
    sets = voc.read_sets(path) if (path / "ImageSets" / "Main").is_dir() else {ONLY_SPLIT: tuple(images)}
    own_names = path / "classes.names"
    if names is None and own_names.is_file():
        names = darknet.read_names(own_names)
    if names is None:
        used: set[str] = set()
        for xml in sorted(annotations.glob("*.xml")):
            used |= voc.names_in(xml.read_bytes())
        names = voc.order_names(used)
    splits = {
        split: tuple(images.get(stem, path / "JPEGImages" / f"{stem}.jpg") for stem in stems)
        for split, stems in sets.items()
    }
    return Dataset(kind="voc", source=path, names=names, splits=splits, read=voc.XmlLabels(annotations, names))
