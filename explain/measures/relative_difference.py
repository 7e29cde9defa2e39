"""Relative difference: the range of a map in units of its mean."""

from __future__ import annotations

import math

from torch import Tensor

from explain.measures.measure import Measure, checked_maps, dead, nan_where, share_of_max

__all__ = ["RELATIVE_DIFFERENCE", "relative_difference"]


def relative_difference(maps: Tensor) -> Tensor:
    """(max M - min M) / mean M. Our own definition: the source names the quantity and does not define it.

    0 for a uniform map, h w for a map of one pixel.

    Args:
        maps: Non-negative, (N, h, w).

    Returns:
        Values in [0, h w], float64, (N,); NaN for a dead map.
    """
    maps = checked_maps(maps)
    scaled = share_of_max(maps)
    spread = scaled.amax(dim=(1, 2)) - scaled.amin(dim=(1, 2))
    return nan_where(dead(maps), spread / scaled.mean(dim=(1, 2)))


RELATIVE_DIFFERENCE = Measure(
    name="relative_difference",
    low=0.0,
    high=math.inf,
    direction="higher",
    formula="(max M - min M) / mean M",
    paper="own definition of a quantity named by Schoettl 2020, arXiv 2009.12546",
    nan="dead map",
    takes=("maps",),
    function=relative_difference,
)
