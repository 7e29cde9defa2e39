"""Correlation of the maps of every image with those of every other: matched pairs are the score, others its null."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from explain.evidence.null import finite_mean, mean_and_spread, mismatches
from explain.evidence.scores import Numbers, Reading
from explain.measures.measure import check_integer

__all__ = ["agreements", "correlations", "matched", "matched_reading"]


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


def agreements(blocks: Sequence[str], ones: Sequence[Tensor], others: Sequence[Tensor]) -> dict[str, float]:
    """Block -> mean over images of the correlation of an image's two maps, in [-1, 1].

    Args:
        ones, others: by block (n, h, w).

    Returns:
        Images with a constant map are left out; so is a block where that leaves none.
    """
    found = {}
    for block, one, other in zip(blocks, ones, others, strict=True):
        value = float(finite_mean(np.diagonal(correlations(one, other))))
        if np.isfinite(value):
            found[block] = value
    return found


def matched(table: Numbers, draws: int, rng: np.random.Generator) -> tuple[float, float, float, int]:
    """Mean of the diagonal, and the same for images paired with another one.

    Args:
        table: (n, n), NaN where a pair is not defined; such pairs are left out.
        draws: D, how many random pairings without a matched pair.

    Returns:
        Score, mean and spread of the null, and how many matched pairs are defined.
    """
    rows = np.arange(len(table))
    score = float(finite_mean(np.diagonal(table)))
    pairings = mismatches(len(table), draws, rng)
    null = finite_mean(table[rows, pairings]) if len(pairings) else np.empty(0)
    mean, spread = mean_and_spread(null)
    return score, mean, spread, int(np.isfinite(np.diagonal(table)).sum())


def matched_reading(
    pairs: Iterable[tuple[str, Tensor, Tensor]], *, sign: int, undefined: str, draws: int, seed: int
) -> Reading:
    """sign x mean correlation of matched maps by block, against maps of other images.

    Args:
        pairs: (name, one, other) of each of the L blocks; maps (n, h, w), of any sign.
        sign: 1, or -1 where agreement speaks against freezing.
        undefined: What the notes call maps without a correlation.
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L,), each in [-1, 1]. Maps that are constant or not finite are left out and noted; NaN for a block
        where that leaves none.

    Raises:
        ValueError: Too few draws.
    """
    rng = np.random.default_rng(seed)
    check_integer("draws", draws, 2)
    rows, notes = [], []
    for name, one, other in pairs:
        table = correlations(one, other)
        score, mean, spread, defined = matched(table, draws, rng)
        rows.append((sign * score, sign * mean, spread))
        if defined < len(table):
            notes.append(f"block {name}: {len(table) - defined} of {len(table)} maps {undefined}")
    values, mean_by_block, spread_by_block = np.array(rows).T
    return Reading(values, mean_by_block, spread_by_block, tuple(notes))
