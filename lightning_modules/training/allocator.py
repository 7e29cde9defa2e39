"""Keeping the C allocator from giving memory back between batches."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Let glibc reuse the memory of a batch for the next one instead of returning it to the system.

    On two cores up to a fifth of a small CNN's training time went to page faults on memory that had just been given
    back. All threads share one arena from here on: those of other threads are given back whatever the thresholds say
    (an epoch of EfficientNet-Lite0 on the executor's thread took 7.5 s, in one arena 6.0 s). Returns whether the
    setting took effect (glibc only: Linux other than Alpine); elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "gnu_get_libc_version"):
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_ARENA_MAX, 1))
    return all(libc.mallopt(name, value) for name, value in wanted)
