"""Giving freed memory back to the system while a long loop is tracked."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def trim_heap() -> None:
    """Return pages that are free but still held, where the C library knows how (glibc); elsewhere do nothing.

    Every frame takes and frees large blocks, and leaves a small result. glibc puts such results at the beginning of the
    holes that large blocks left, which then no longer fit, and takes new memory for the next ones: without this, the
    process grows by about 0.3 MB a frame.
    """
    trim = _glibc_trim()
    if trim is not None:
        trim(0)


@cache
def _glibc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries of Linux do not have it
