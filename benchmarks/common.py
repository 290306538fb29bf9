"""Shared by several benchmarks: locations of files, tables, and resource usage of a process on Linux."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


def cfg_path(name: str) -> Path:
    """Path of a cfg file, given its path or the name of a file in cfg/."""
    return Path(name) if Path(name).is_file() else ROOT / "cfg" / f"{name}.cfg"


def table(head: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> str:
    """A Markdown table, or only its head if there are no rows."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


class Usage(NamedTuple):
    """Memory in MiB, number of open files, and number of threads.

    Pages shared between processes count once. File-backed pages, such as libraries, do not count: a process's share of them
    depends on which other programs use them.
    """

    memory: float
    files: int
    threads: int


def usage(pid: int) -> Usage:
    """Resource usage of a process. Raises OSError if it has ended."""
    folder = Path(f"/proc/{pid}")
    rows = (row.split() for row in (folder / "smaps_rollup").read_text().splitlines())
    memory = sum(int(row[1]) for row in rows if row[0] in ("Pss_Anon:", "Pss_Shmem:")) / 1024
    return Usage(memory, *(sum(1 for _ in (folder / name).iterdir()) for name in ("fd", "task")))


def children(pid: int) -> list[int]:
    """Process ids of all descendants of a process. Raises OSError if one of them ends meanwhile."""
    lists = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    direct = [int(each) for ids in lists for each in ids]
    return [*direct, *(inner for each in direct for inner in children(each))]
