"""Loss and maps of the trials at a rung in one number: J = z(-ln loss) + z(S).

Nothing here loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from explain.evidence.null import finite_mean
from explain.evidence.scores import Numbers

__all__ = ["Statistics", "joint", "standardised", "summed"]

Statistics = Mapping[str, Mapping[str, float]]
"""Statistic -> block ("" for what is of none) -> value, of one trial at one rung."""

_LOSSES = 1e-4, 1e4  # a loss of 0 has no logarithm, and a diverged one no end


def standardised(values: ArrayLike) -> Numbers:
    """z of what is finite: (value - mean) / standard deviation (of the population); 0 where there is no spread.

    What is not finite becomes 0, the mean: nothing is known of it.

    Example:
        >>> standardised([1.0, 3.0, float("nan")])
        array([-1.,  1.,  0.])
    """
    given = np.asarray(values, dtype=np.float64)
    known = given[np.isfinite(given)]
    # Equal values differ by rounding only.
    if len(known) < 2 or np.ptp(known) <= 1e-12 * max(1.0, float(np.abs(known).max())):
        return np.zeros(len(given))
    return np.where(np.isfinite(given), (given - known.mean()) / known.std(), 0.0)


def summed(trials: Sequence[Statistics], names: Sequence[str]) -> Numbers:
    """S = sum over the statistics of their mean over blocks, (trials,).

    A statistic that a trial lacks is taken as the mean of the others that have it, so that it says nothing.

    Args:
        names: which statistics; none of them gives zeros.
    """
    total = np.zeros(len(trials))
    for name in names:
        values = np.array([float(np.mean(list(of[name].values()))) if of.get(name) else math.nan for of in trials])
        mean = float(finite_mean(values)) if len(values) else math.nan
        total += np.where(np.isfinite(values), values, 0.0 if math.isnan(mean) else mean)
    return total


def joint(
    losses: Sequence[float], trials: Sequence[Statistics], groups: Sequence[Hashable], names: Sequence[str]
) -> Numbers:
    """J of each trial at a rung, (trials,); more is better.

    z(-ln loss) is over all trials, z(S) over those of one group: maps of two networks do not compare.

    Args:
        losses: validation log losses, >= 0; infinite where unknown.
        trials: their statistics.
        groups: the network of each.
        names: which statistics S sums (see `summed`).
    """
    clipped = np.clip(np.nan_to_num(np.asarray(losses, dtype=np.float64), nan=_LOSSES[1]), *_LOSSES)
    found = standardised(-np.log(clipped))
    for group in dict.fromkeys(groups):
        members = [place for place, of in enumerate(groups) if of == group]
        found[members] += standardised(summed([trials[place] for place in members], names))
    return found
