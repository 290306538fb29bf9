"""How much memory there is, and how much this process has taken."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def free_memory() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not say.

    In a container (control groups of version 2) no more than its limit leaves.
    """
    words = _entry("MemAvailable")
    if words is None:
        return None
    limit, used = _number(_LIMIT), _number(_USED)
    return words if limit is None or used is None else min(words, max(0, limit - used))


def peak_memory() -> int | None:
    """The most bytes that this process has had in memory; None where the system does not say."""
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # there in bytes, elsewhere in kilobytes


def _entry(name: str) -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    words = dict(line.split(":", 1) for line in lines if ":" in line).get(name, "").split()
    return int(words[0]) * 1024 if words else None


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none, or "max" for no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
_LARGEST_FROM_HEAP = 32 << 20  # the most it takes
_KEPT, _AHEAD = 2**31 - 1, 128 << 20


def keep_freed_memory() -> None:
    """Let freed blocks of up to 32 MiB stay in this process, on Linux with the GNU C library; elsewhere do nothing.

    By default every activation of a network, and every image, goes back to the system when it is freed, and the system
    clears its pages when they are asked for again a moment later. A training step on a processor takes about an eighth
    longer then, fitting an image to a network twice as long.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    for option, value in (
        (_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP),
        (_M_TRIM_THRESHOLD, _KEPT),
        (_M_TOP_PAD, _AHEAD),
    ):
        mallopt(option, value)
