"""Correlation of the maps of every image with those of every other: matched pairs are the score, others its null."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from explain.evidence.null import finite_mean, mean_and_spread, mismatches
from explain.evidence.scores import Numbers

__all__ = ["correlations", "matched"]


def correlations(one: Tensor, other: Tensor) -> Numbers:
    """Pearson correlation over positions between image i of one and image j of the other.

    Args:
        one: (n, h, w), of any sign.
        other: (n, h, w).

    Returns:
        (n, n), float64, in [-1, 1]; NaN where one of the two is constant or not finite.
    """
    flat = []
    for maps in (one, other):
        rows = maps.double().flatten(1)
        constant = ~torch.isfinite(rows).all(dim=1) | (rows.amax(dim=1) == rows.amin(dim=1))
        # Scaling by the maximum keeps the squares of tiny and huge maps finite.
        rows = rows / rows.abs().amax(dim=1, keepdim=True)
        rows = rows - rows.mean(dim=1, keepdim=True)
        rows = rows / rows.norm(dim=1, keepdim=True)
        flat.append(rows.masked_fill(constant[:, None], float("nan")))
    return np.asarray((flat[0] @ flat[1].T).clamp(-1, 1).numpy(), dtype=np.float64)


def matched(table: Numbers, draws: int, rng: np.random.Generator) -> tuple[float, float, float, int]:
    """Mean of the diagonal, and the same for images paired with another one.

    Args:
        table: (n, n), NaN where a pair is not defined; such pairs are left out.
        draws: D, how many random pairings without a matched pair.
        rng: Draws them.

    Returns:
        Score, mean and spread of the null, and how many matched pairs are defined.
    """
    rows = np.arange(len(table))
    score = float(finite_mean(np.diagonal(table)))
    pairings = mismatches(len(table), draws, rng)
    null = finite_mean(table[rows, pairings]) if len(pairings) else np.empty(0)
    mean, spread = mean_and_spread(null)
    return score, mean, spread, int(np.isfinite(np.diagonal(table)).sum())
