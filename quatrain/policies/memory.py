"""How a process on a CPU comes by memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's numbers of two parameters of malloc."""
_MOST = (1 << 31) - 1


def recycle() -> None:
    """Keep freed buffers for the next ones of their size, where the C library is glibc.

    Otherwise each buffer of 32 MiB or more is taken anew from the system, page by page, and given back at once: a third of the
    time of an update.
    """
    if not sys.platform.startswith("linux"):
        return
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator is not None:
        allocator(_MMAP_THRESHOLD, _MOST)
        allocator(_TRIM_THRESHOLD, _MOST)
