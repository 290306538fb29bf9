"""What several of these programs share: where files are, tables, and what Linux tells about a process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


def cfg_path(name: str) -> Path:
    """A cfg file, or the file of that name in cfg/."""
    return Path(name) if Path(name).is_file() else ROOT / "cfg" / f"{name}.cfg"


def table(head: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> str:
    """Markdown, a line for the head and one for each row."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


class Usage(NamedTuple):
    """Memory in MiB, and how many open files and threads.

    Pages that processes share count once. Pages of files, such as libraries, do not count: a process's part of them depends on
    the other programs that have them open.
    """

    memory: float
    files: int
    threads: int


def usage(pid: int) -> Usage:
    """What a process uses. Raises OSError when it has ended."""
    folder = Path(f"/proc/{pid}")
    rows = (row.split() for row in (folder / "smaps_rollup").read_text().splitlines())
    memory = sum(int(row[1]) for row in rows if row[0] in ("Pss_Anon:", "Pss_Shmem:")) / 1024
    return Usage(memory, *(sum(1 for _ in (folder / name).iterdir()) for name in ("fd", "task")))


def children(pid: int) -> list[int]:
    """The processes that a process has started, and theirs. Raises OSError when one of them ends meanwhile."""
    lists = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    direct = [int(each) for ids in lists for each in ids]
    return [*direct, *(inner for each in direct for inner in children(each))]
