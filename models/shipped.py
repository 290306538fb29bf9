"""The trained models that come with the project."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from utils.files import is_file

FOLDER = Path(__file__).resolve().parent.parent / "weights"


class ShippedModel(NamedTuple):
    """Paths of a model's files."""

    cfg: str
    weights: str
    names: str

    def class_names(self) -> tuple[str, ...]:
        return tuple(Path(self.names).read_text("utf-8").splitlines())


def shipped_models() -> list[str]:
    """Return the names of the models that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.weights"))


def shipped_model(name: str | Path | None) -> ShippedModel | None:
    """Return the shipped model of this name; None if there is none, or if a file has this name."""
    if str(name) not in shipped_models() or is_file(str(name)):
        return None
    return ShippedModel(*(str(FOLDER / f"{name}{suffix}") for suffix in (".cfg", ".weights", ".names")))
