"""Root may write what is read-only: giving that up."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def without_power() -> Iterator[None]:
    """Root may write what is read-only; give that up for this thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, now = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    if libc.capget(header, before) or libc.capget(header, now):
        pytest.skip("this system knows no capabilities")
    now[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert not libc.capset(header, now)
    try:
        yield
    finally:
        assert not libc.capset(header, before)
