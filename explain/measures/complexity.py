"""Complexity: the share of the image a map covers."""

from __future__ import annotations

from torch import Tensor

from explain.measures.measure import Measure, checked_maps, dead, nan_where, share_of_max

__all__ = ["COMPLEXITY", "complexity"]


def complexity(maps: Tensor) -> Tensor:
    """L1 norm of M / max M, divided by h w. (Another thing than Quantus' Complexity, which is ce.)

    Args:
        maps: Non-negative, (N, h, w).

    Returns:
        Values in [1 / (h w), 1], float64, (N,); NaN for a dead map.
    """
    maps = checked_maps(maps)
    return nan_where(dead(maps), share_of_max(maps).mean(dim=(1, 2)))


COMPLEXITY = Measure(
    name="complexity",
    low=0.0,
    high=1.0,
    direction="lower",
    formula="|M / max M|_1 / (h w)",
    paper="Poppi et al. 2021, arXiv 2104.10252",
    nan="dead map",
    takes=("maps",),
    function=complexity,
)
