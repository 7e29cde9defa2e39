"""Two samples compared by permutation: which images are new is drawn again, and every statistic computed anew.

n images in both samples together, P permutations. A membership is a row of booleans: True for new images; the first row
is what was observed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["chi_square", "holm", "memberships", "p_value", "squared_mmd"]

Numbers = NDArray[np.float64]
Members = NDArray[np.bool_]


def holm(p_values: ArrayLike) -> list[float]:
    """Holm's adjustment: the chance that any of so many true nulls comes as low is at most the adjusted value."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1.0)
    return [float(value) for value in adjusted[np.argsort(order, kind="stable")]]


def memberships(groups: NDArray[np.int64], is_new: Members, permutations: int, rng: np.random.Generator) -> Members:
    """Which images are new, (1 + P, n): first as it is, then with the groups drawn again."""
    _, first, of = np.unique(groups, return_index=True, return_inverse=True)
    new_groups = is_new[first]
    drawn = rng.permuted(np.tile(new_groups, (permutations, 1)), axis=1)
    return np.vstack([new_groups, drawn])[:, of]


def p_value(draws: Numbers) -> float:
    """Share of permutations that come as far as what was observed (the first), itself counted."""
    return float(np.mean(draws >= draws[0] - 1e-12))


def squared_mmd(features: NDArray[np.float32], members: Members) -> Numbers:
    """Unbiased MMD² of each membership, (1 + P,)."""
    x = features.astype(np.float64)
    x = x - x.mean(axis=0)
    square = (x**2).sum(axis=1)
    distances = np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0.0)
    median = float(np.median(distances[~np.eye(len(x), dtype=bool)]))
    kernel = np.exp(-distances / max(median, np.finfo(np.float64).tiny) / 2)
    np.fill_diagonal(kernel, 0.0)
    inside = members.astype(np.float64)
    rows = inside @ kernel
    new = (rows * inside).sum(axis=1)
    across = rows.sum(axis=1) - new
    old = kernel.sum() - new - 2 * across
    m = inside.sum(axis=1)
    k = len(x) - m
    return np.asarray(
        new / np.maximum(m * (m - 1), 1) + old / np.maximum(k * (k - 1), 1) - 2 * across / (m * k), dtype=np.float64
    )


def chi_square(labels: NDArray[np.int64], members: Members) -> Numbers:
    """Pearson's chi-square of classes against old and new, of each membership, (1 + P,)."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    total = one_hot.sum(axis=0)
    new = members @ one_hot
    share = members.mean(axis=1)[:, None]
    wanted = np.maximum(total * share * (1 - share), 1e-300)
    # (new - expected)² / expected, summed over old and new.
    return np.asarray(((new - total * share) ** 2 / wanted)[:, total > 0].sum(axis=1), dtype=np.float64)
