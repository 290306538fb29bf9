"""Pascal VOC: an XML file of labels per image, and lists of image names in ImageSets/Main.

Pixels are counted from 1. Boxes follow the original's scripts/voc_label.py: centre minus one, size xmax - xmin.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from data.annotations import MALFORMED, Annotation, Finding
from utils.errors import InputError
from utils.files import exists, read_text

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_FLAGGED = re.compile(r"\s(-1|0|1)$")
_SIDE = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_MOST = 1e15  # maximum number of pixels
_EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(eq=False)
class _Element:
    tag: str
    line: int
    parts: list[str] = field(default_factory=list)
    children: list[_Element] = field(default_factory=list)

    def find(self, path: str) -> _Element | None:
        """Return the first descendant at a path such as `size/width`."""
        here: _Element | None = self
        for tag in path.split("/"):
            here = next((child for child in here.children if child.tag == tag), None) if here else None
        return here

    def value(self, path: str) -> str:
        found = self.find(path)
        return "".join(found.parts).strip() if found else ""


class _XmlError(ValueError):
    def __init__(self, text: str, line: int | None) -> None:
        super().__init__(text)
        self.line = line


def _parse_xml(data: bytes) -> _Element:
    """Parse into a tree of elements with line numbers. Raises ValueError for bad XML and for entity declarations."""
    root = _Element("", 0)
    open_elements = [root]
    parser = expat.ParserCreate()

    def start(tag: str, _: dict[str, str]) -> None:
        element = _Element(tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop()

    def characters(text: str) -> None:
        open_elements[-1].parts.append(text)

    def entity(*_: object) -> None:
        raise ValueError("entity declarations are not allowed")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = characters, entity
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: unknown encoding
        raise _XmlError(str(error), getattr(error, "lineno", None)) from None
    return root


def parse_annotation(data: bytes, place: str, image: Path, class_of: Mapping[str, int]) -> Annotation:
    """Parse the labels of an XML file; an object or a file that cannot be read becomes a finding."""
    try:
        root = _parse_xml(data)
    except ValueError as error:
        bad = Finding(kind=MALFORMED, place=place, line=getattr(error, "line", None), text=f"not valid XML: {error}")
        return Annotation.of(image, label_path=Path(place), findings=(bad,))
    top = root.find("annotation") or root
    size_wh = _size(top)
    if size_wh is None:
        text = "size: width and height must be integers above 0; the labels are not used"
        bad = Finding(kind=MALFORMED, place=place, line=top.line, text=text)
        return Annotation.of(image, label_path=Path(place), findings=(bad,))
    boxes, ids, lines, difficult, findings = [], [], [], [], []
    for thing in (child for child in top.children if child.tag == "object"):
        try:
            left, top_edge, right, bottom = _edges(thing)
            name = thing.value("name")
            if name not in class_of:
                raise ValueError(f"class '{name}' is not among the {len(class_of)} names")
        except ValueError as error:
            findings.append(Finding(kind=MALFORMED, place=place, line=thing.line, text=str(error)))
            continue
        width, height = size_wh
        centre = ((left + right) / 2 - 1, (top_edge + bottom) / 2 - 1)
        boxes.append([centre[0] / width, centre[1] / height, (right - left) / width, (bottom - top_edge) / height])
        ids.append(class_of[name])
        lines.append(thing.line)
        difficult.append(thing.value("difficult") == "1")
    return Annotation.of(
        image,
        boxes,
        ids,
        lines=lines,
        difficult=difficult,
        size_wh=size_wh,
        label_path=Path(place),
        findings=tuple(findings),
    )


def _size(top: _Element) -> tuple[int, int] | None:
    width, height = top.value("size/width"), top.value("size/height")
    if not _SIDE.fullmatch(width) or not _SIDE.fullmatch(height):
        return None
    return int(width), int(height)


def _edges(thing: _Element) -> list[float]:
    values = []
    for edge in _EDGES:
        text = thing.value(f"bndbox/{edge}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) < _MOST:
            raise ValueError(f"{edge}: cannot read '{text:.40}', expected a number of pixels")
        values.append(value)
    return values


def names_in(data: bytes) -> set[str]:
    """Return the class names in an XML file; none if it is not valid."""
    try:
        root = _parse_xml(data)
    except ValueError:
        return set()
    top = root.find("annotation") or root
    return {thing.value("name") for thing in top.children if thing.tag == "object"} - {""}


def format_annotation(annotation: Annotation, size_wh: tuple[int, int], names: tuple[str, ...]) -> str:
    """Return the text of an XML file. The format has no crowds."""
    width, height = size_wh
    out = [
        "<annotation>",
        f"\t<folder>{escape(annotation.image.parent.name)}</folder>",
        f"\t<filename>{escape(annotation.image.name)}</filename>",
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>",
    ]
    kept = annotation.select(~annotation.crowd)
    for class_id, (cx, cy, w, h), hard in zip(
        kept.class_ids.tolist(), kept.cxcywh_rel.tolist(), kept.difficult.tolist(), strict=True
    ):
        middle_x, middle_y, half_w, half_h = cx * width + 1, cy * height + 1, w * width / 2, h * height / 2
        edges = (middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h)
        box = "".join(
            f"\t\t\t<{edge}>{round(value, 9):.15g}</{edge}>\n" for edge, value in zip(_EDGES, edges, strict=True)
        )
        out.append(
            f"\t<object>\n\t\t<name>{escape(names[class_id])}</name>\n\t\t<difficult>{int(hard)}</difficult>\n"
            f"\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>"
        )
    return "\n".join([*out, "</annotation>\n"])


def label_candidates(image: Path) -> tuple[Path, ...]:
    """Return where labelling tools save the XML file of an image: next to it, or in a folder next to its `images`."""
    beside = image.with_suffix(".xml")
    head, found, tail = f"/{beside.as_posix()}".rpartition("/images/")
    folders = ("annotations", "Annotations") if found else ()
    return (beside, *(Path(f"{head}/{folder}/{tail}"[1:]) for folder in folders))


@dataclass(frozen=True)
class XmlLabels:
    """A reader of labels from `annotations`/NAME.xml, or, if that is None, from one of `label_candidates`."""

    annotations: Path | None
    names: tuple[str, ...]

    def __call__(self, image: Path) -> Annotation:
        paths = label_candidates(image) if self.annotations is None else (self.annotations / f"{image.stem}.xml",)
        path = next(filter(exists, paths), paths[0])
        try:
            data = path.read_bytes()
        except OSError:
            text = f"no label file; tried {', '.join(map(str, paths))}"
            return Annotation.of(image, findings=(Finding(kind="labels missing", place=str(image), text=text),))
        return parse_annotation(data, str(path), image, {name: i for i, name in enumerate(self.names)})


def order_names(used: Iterable[str]) -> tuple[str, ...]:
    """Return the 20 names of Pascal VOC if no other name is used, else the used names in alphabetical order."""
    found = set(used)
    return VOC_NAMES if found and found <= set(VOC_NAMES) else tuple(sorted(found))


def read_sets(folder: Path) -> dict[str, tuple[str, ...]]:
    """Read the image names of every split in `folder`/ImageSets/Main, except per-class lists (name and flag)."""
    sets: dict[str, tuple[str, ...]] = {}
    for path in sorted((folder / "ImageSets" / "Main").glob("*.txt")):
        rows = tuple(bare for line in read_text(path, "image set").splitlines() if (bare := line.strip()))
        if not rows or not all(_FLAGGED.search(row) for row in rows):
            sets[path.stem] = rows
    if not sets:
        raise InputError(f"{folder}: no lists in ImageSets/Main, expected train.txt, val.txt, ...")
    return sets
