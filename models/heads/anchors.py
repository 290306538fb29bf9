"""Anchors in a cfg: reading the list, and the checks that every head with anchors makes when it is planned."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from models.layers.base import Site
from utils.errors import InputError
from utils.files import read_text

logger = logging.getLogger(__name__)

DEFAULT_SIZE = 0.5  # of an anchor that is not given: make_yolo_layer, make_region_layer


def pairs(values: Sequence[float] | None, count: int) -> tuple[tuple[float, float], ...]:
    """`count` (width, height) from the flat list of the cfg; what the list lacks has DEFAULT_SIZE, as in the original."""
    given = [*(values or ())][: 2 * count]
    given += [DEFAULT_SIZE] * (2 * count - len(given))
    return tuple(zip(given[::2], given[1::2], strict=True))


def check_sizes(site: Site, values: Sequence[float] | None, count: int) -> None:
    """Raises CfgError for a size that is not above zero; warns if the list is shorter or longer than `count` anchors.

    Published cfgs have lists with a comma forgotten; the original reads them, and so do we.
    """
    if values is None:
        return
    wrong = [value for value in values[: 2 * count] if value <= 0]
    if wrong:
        raise site.error(f"anchors: {wrong[0]:g} is out of range, expected sizes above 0", "anchors")
    if len(values) != 2 * count:
        effect = f"the missing ones are {DEFAULT_SIZE}" if len(values) < 2 * count else "the last ones are not used"
        raw = site.raw
        text = "%s:%d: [%s] anchors: has %d values, expected 2 for each of %d anchors; %s"
        entry = raw.find("anchors")
        logger.warning(text, raw.path, entry.line if entry else raw.line, raw.name, len(values), count, effect)


def check_mask(site: Site, indices: Sequence[int], count: int) -> None:
    """Raises CfgError if an index of `mask` is not an anchor or stands there twice."""
    for index in indices:
        if not 0 <= index < count:
            raise site.error(f"mask: there is no anchor {index}, expected 0 to {count - 1}", "mask")
    if len(set(indices)) < len(indices):
        raise site.error("mask: an anchor stands there twice", "mask")


def check_filters(site: Site, filters: int, because: str) -> None:
    """Raises CfgError if the layer before has another number of channels than the head needs."""
    if site.input.channels != filters:
        found = site.input.channels
        raise site.error(f"reads {found} channels, expected filters={filters} in the layer before it for {because}")


def read_class_map(name: str, cfg_path: str) -> list[int]:
    """The class number on each line of a map file (utils.c read_map)."""
    path = beside(name, cfg_path)
    classes = []
    for number, line in enumerate(read_text(path, "class map").splitlines(), start=1):
        try:
            classes.append(int(line))
        except ValueError:
            raise InputError(f"{path}:{number}: cannot read {line[:40]!r}, expected a class number") from None
    return classes


def beside(name: str, cfg_path: str) -> Path:
    """A file that a cfg names: as it stands, else seen from the cfg's folder or the folder above it.

    The original looks from the folder it is started in only, which usually is the one above `cfg/`.
    """
    folder = Path(cfg_path).resolve().parent
    tried = (Path(name), folder / name, folder.parent / name)
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise InputError(f"{cfg_path}: names {name}, which is neither here nor in {folder} nor in {folder.parent}")
    return found
