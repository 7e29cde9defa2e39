"""How fast this machine multiplies matrices: the limit that is put beside times."""

from __future__ import annotations

import time

import torch

__all__ = ["product_rate"]


def product_rate() -> float:
    """Floating-point operations a second of a 2048 x 2048 matrix product on all threads, the best of some."""
    a = torch.rand(2048, 2048)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        best = max(best, 2 * 2048**3 / (time.perf_counter() - started))
    return best
