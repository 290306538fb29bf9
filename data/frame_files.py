"""Which files a source names: a file, a folder, a glob pattern or a text list."""

from __future__ import annotations

import glob
from pathlib import Path

from utils.errors import InputError
from utils.files import read_text

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".gif", ".jpeg", ".jpg", ".jpe", ".jp2", ".png", ".apng", ".webp", ".avif", ".pbm", ".pgm"}
    | {".ppm", ".pnm", ".sr", ".ras", ".tiff", ".tif"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".m2v", ".ts", ".mts", ".m2ts"}
    | {".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".vob", ".h264", ".h265", ".hevc", ".264", ".265"}
    | {".mjpeg", ".mjpg", ".y4m"}
)
_GLOB = frozenset("*?[")


def is_video(path: str | Path) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_files(source: str) -> list[Path]:
    """Pictures and videos that `source` names, in the order of their names or of the list. Never empty.

    A folder gives the pictures and videos in it, not those in its folders. A name that exists is taken as it is,
    even if it holds `*`, `?` or `[`. Raises InputError.
    """
    path = Path(source)
    try:
        if path.is_dir():
            return _not_empty(sorted(each for each in path.iterdir() if _known(each)), source, "folder has no")
        found = path.exists()
    except OSError as error:  # no right to read it, or a name that is too long
        raise InputError(f"{source}: cannot be read: {error.strerror}") from None
    if found:
        return _from_list(path) if path.suffix.lower() == ".txt" else [path]
    if _GLOB & set(source):
        matches = (Path(each) for each in glob.iglob(source, recursive=True))  # noqa: PTH207, absolute patterns
        return _not_empty(sorted(each for each in matches if _known(each)), source, "pattern matches no")
    raise InputError(f"{source}: no such picture, video, folder, list, camera or stream")


def _known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and path.is_file()


def _not_empty(paths: list[Path], source: str, what: str) -> list[Path]:
    if not paths:
        raise InputError(f"{source}: {what} pictures or videos")
    return paths


def _from_list(path: Path) -> list[Path]:
    """A path a line, relative to the working folder (as the original has it) or else to the list's."""
    lines = (line.strip() for line in read_text(path, "list").splitlines())
    entries = [Path(line) for line in lines if line]
    beside = [path.parent / entry for entry in entries]
    chosen = [
        near if not entry.exists() and near.exists() else entry for entry, near in zip(entries, beside, strict=True)
    ]
    return _not_empty(chosen, str(path), "list names no")
