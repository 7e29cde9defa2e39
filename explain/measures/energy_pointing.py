"""Energy pointing game: how much of the map lies on the defect."""

from __future__ import annotations

from torch import Tensor

from explain.attribution import upsample
from explain.measures.measure import Measure, dead, nan_where, share_of_max, share_of_sum
from explain.measures.truth import checked_truth

__all__ = ["ENERGY_POINTING", "energy_pointing"]


def energy_pointing(maps: Tensor, truth: Tensor) -> Tensor:
    """Share of the up-sampled map's sum that lies inside the truth.

    A uniform map scores the share of the image the truth covers, which is chance.

    Args:
        maps: Non-negative, (N, h, w).
        truth: Masks, bool, (N, H, W); boxes through `boxes_to_masks`.

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map and for an image without truth.
    """
    maps, truth = checked_truth(maps, truth)
    height, width = truth.shape[1:]
    mass = share_of_sum(upsample(share_of_max(maps), (height, width)))
    values = (mass * truth).sum(dim=(1, 2)).clamp(0, 1)
    return nan_where(dead(maps) | ~truth.flatten(1).any(dim=1), values)


ENERGY_POINTING = Measure(
    name="energy_pointing",
    low=0.0,
    high=1.0,
    direction="higher",
    formula="sum of M inside the truth / sum of M",
    paper="Wang et al. 2020, arXiv 1910.01279",
    nan="dead map, or an image without truth",
    takes=("maps", "truth"),
    function=energy_pointing,
)
