"""Free, total and peak memory, and the allocator's handling of freed memory."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def free_memory() -> int | None:
    """Return the bytes available without swapping, within the container's limit (cgroup v2); None if unknown."""
    available = _meminfo("MemAvailable")
    limit, used = _number(_LIMIT), _number(_USED)
    if available is None or limit is None or used is None:
        return available
    return min(available, max(0, limit - used))


def total_memory() -> int | None:
    """Return the bytes that this machine, or this container (cgroup v2), may use at most; None if unknown."""
    found = [value for value in (_meminfo("MemTotal"), _number(_LIMIT)) if value is not None]
    return min(found, default=None)


def peak_memory() -> int | None:
    """Return the peak resident memory of this process in bytes; None if unknown."""
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, kilobytes elsewhere


def _meminfo(name: str) -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    entry = next((line.split() for line in lines if line.startswith(f"{name}:")), None)
    return int(entry[1]) * 1024 if entry else None


def _number(path: Path) -> int | None:
    """Return the number in a file; None if the file is missing or says "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
_MMAP_THRESHOLD = 32 << 20  # the maximum it accepts
_TRIM_THRESHOLD, _TOP_PAD = 2**31 - 1, 128 << 20


def keep_freed_memory() -> None:
    """Keep freed blocks of up to 32 MiB in this process, on Linux with the GNU C library; a no-op elsewhere.

    By default every activation and image is returned to the system when freed, and the system clears the pages again a
    moment later. That slows a training step on the CPU by about an eighth and doubles the time to resize an image.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    for option, value in (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD),
        (_M_TOP_PAD, _TOP_PAD),
    ):
        mallopt(option, value)
