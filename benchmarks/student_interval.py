"""Student's 95 % interval of a mean, for tables over splits."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

__all__ = ["interval"]


def interval(values: ArrayLike) -> tuple[float, float]:
    """Low and high end; both not a number where there are fewer than two values."""
    found = np.asarray(values, float)
    if len(found) < 2:
        return float("nan"), float("nan")
    half = student.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return float(found.mean() - half), float(found.mean() + half)
