"""Pointing game: does the map's highest point lie on the defect?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from explain.attribution import upsample
from explain.measures.measure import Measure, dead, nan_where, share_of_max
from explain.measures.truth import checked_truth

__all__ = ["POINTING_GAME", "pointing_game"]


def pointing_game(maps: Tensor, truth: Tensor, *, tolerance: int = 0) -> Tensor:
    """1 if the arg-max of the up-sampled map lies inside the truth, else 0.

    Where several pixels share the maximum the value is the share of them inside: a uniform map scores the share of
    the image the truth covers, which is chance.

    Args:
        maps: Non-negative, (N, h, w).
        truth: Masks, bool, (N, H, W); boxes through `boxes_to_masks`.
        tolerance: Distance in pixels within which a miss still counts as a hit (the paper uses 15), >= 0.

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map and for an image without truth.

    Raises:
        ValueError: A negative tolerance.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int):
        raise TypeError(f"tolerance must be an integer number of pixels, got {tolerance!r}")
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    maps, truth = checked_truth(maps, truth)
    height, width = truth.shape[1:]
    large = upsample(share_of_max(maps), (height, width))
    # Interpolating a plateau rounds its values apart.
    highest = (large >= large.amax(dim=(1, 2), keepdim=True) * (1 - 1e-12)).double()
    inside = _dilated(truth, tolerance).double()
    values = (highest * inside).sum(dim=(1, 2)) / highest.sum(dim=(1, 2))
    return nan_where(dead(maps) | ~truth.flatten(1).any(dim=1), values)


def _dilated(truth: Tensor, radius: int) -> Tensor:
    """Pixels within `radius` of a pixel of the truth, bool, (N, H, W)."""
    if radius == 0:
        return truth
    offsets = torch.arange(-radius, radius + 1, device=truth.device)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).float()
    return functional.conv2d(truth[:, None].float(), disc[None, None], padding=radius)[:, 0] > 0.5


POINTING_GAME = Measure(
    name="pointing_game",
    low=0.0,
    high=1.0,
    direction="higher",
    formula="share of the arg-max of M inside the truth",
    paper="Zhang et al. 2016, arXiv 1608.00507",
    nan="dead map, or an image without truth",
    takes=("maps", "truth"),
    function=pointing_game,
)
