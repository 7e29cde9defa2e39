"""Dead-map rate: how often an explanation is zero everywhere."""

from __future__ import annotations

from torch import Tensor

from explain.measures.measure import Measure, checked_maps, dead

__all__ = ["DEAD_MAP_RATE", "dead_map_rate"]


def dead_map_rate(maps: Tensor) -> Tensor:
    """1[sum M = 0] by image; the mean over images is the rate.

    Every other measure is NaN on these maps, so this one is reported beside them.

    Args:
        maps: Non-negative, (N, h, w).

    Returns:
        0 or 1, float64, (N,); never NaN.
    """
    return dead(checked_maps(maps)).double()


DEAD_MAP_RATE = Measure(
    name="dead_map_rate",
    low=0.0,
    high=1.0,
    direction="lower",
    formula="mean over images of 1[sum M = 0]",
    paper="own definition",
    nan="never",
    takes=("maps",),
    function=dead_map_rate,
)
