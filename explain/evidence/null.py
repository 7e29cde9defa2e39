"""Drawing chance: random permutations of several kinds, and the mean and spread of a score over draws.

All are seeded. D is the number of draws, n the number of things permuted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explain.evidence.scores import Numbers

__all__ = ["finite_mean", "mean_and_spread", "mismatches", "no_null", "permutations_within"]

Indices = NDArray[np.int64]


def mismatches(count: int, draws: int, rng: np.random.Generator) -> Indices:
    """(D, n) permutations that leave nothing in its place: one random cycle through all; D = 0 for n < 2."""
    if count < 2:
        return np.empty((0, count), dtype=np.int64)
    found = np.empty((draws, count), dtype=np.int64)
    for row in found:
        cycle = rng.permutation(count)
        row[cycle] = np.roll(cycle, 1)
    return found


def permutations_within(groups: NDArray[np.int64], draws: int, rng: np.random.Generator) -> Indices:
    """(D, n) permutations that only swap members of one group; groups (n,) hold the number of each one's group."""
    found = np.tile(np.arange(len(groups), dtype=np.int64), (draws, 1))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        found[:, members] = rng.permuted(np.tile(members, (draws, 1)), axis=1)
    return found


def finite_mean(values: Numbers, axis: int = -1) -> Numbers:
    """Mean over what is finite along an axis; NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=axis)
    total = np.where(finite, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), dtype=np.float64)


def mean_and_spread(draws: Numbers) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of the finite draws (D,); NaN where fewer than one or two are."""
    finite = draws[np.isfinite(draws)]
    mean = float(finite.mean()) if len(finite) else float("nan")
    # Equal draws differ by rounding only; their spread must be 0, not 1e-17, or any z-score becomes huge.
    if len(finite) > 1 and np.ptp(finite) <= 1e-12 * max(1.0, float(np.abs(finite).max())):
        return mean, 0.0
    return mean, float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")


def no_null(size: int) -> tuple[Numbers, Numbers]:
    """Mean and spread of a scorer without null: NaN, (size,) each."""
    return np.full(size, np.nan), np.full(size, np.nan)
