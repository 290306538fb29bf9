"""How the C library keeps freed memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
_LARGEST_FROM_HEAP = 32 << 20  # the most it takes
_KEPT, _AHEAD = 2**31 - 1, 128 << 20


def keep_freed_memory() -> None:
    """Let freed blocks of up to 32 MiB stay in this process, on Linux with the GNU C library; elsewhere do nothing.

    By default every activation of a network, and every picture, goes back to the system when it is freed, and the system
    clears its pages when they are asked for again a moment later. A training step on a processor takes about an eighth
    longer then, fitting a picture to a network twice as long.
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
