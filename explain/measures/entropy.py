"""CAM entropy: how widely a map spreads over its positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from explain.measures.measure import Measure, checked_maps, dead, nan_where, share_of_sum

__all__ = ["ENTROPY", "NORMALISED_ENTROPY", "entropy", "normalised_entropy"]


def entropy(maps: Tensor) -> Tensor:
    """ce = -sum M_bar ln M_bar in nats, with 0 ln 0 = 0.

    0 for a map of one pixel, ln(h w) for a uniform one. Lower is sharper, and no more than that: the sharpest map of
    all shows one pixel, so read it beside accuracy and faithfulness. Nearly one quantity with cd (Renyi-2 against
    Shannon entropy): never count the two as independent votes. Depends on the resolution: not comparable across blocks.

    Args:
        maps: Non-negative, (N, h, w).

    Returns:
        ce in [0, ln(h w)], float64, (N,); NaN for a dead map.
    """
    maps = checked_maps(maps)
    return nan_where(dead(maps), torch.special.entr(share_of_sum(maps)).sum(dim=(1, 2)).clamp_min(0))


def normalised_entropy(maps: Tensor) -> Tensor:
    """ce / ln(h w).

    Args:
        maps: Non-negative, (N, h, w).

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map and for a map of a single position.

    Example:
        >>> normalised_entropy(torch.tensor([[[1.0, 1.0]], [[0.0, 5.0]], [[0.0, 0.0]]]))
        tensor([1., 0., nan], dtype=torch.float64)
    """
    positions = maps.shape[-2] * maps.shape[-1] if isinstance(maps, Tensor) and maps.ndim == 3 else 0
    values = entropy(maps)
    if positions == 1:
        return torch.full_like(values, math.nan)
    return (values / math.log(positions)).clamp_max(1)


ENTROPY = Measure(
    name="ce",
    low=0.0,
    high=math.inf,
    direction="lower",
    formula="-sum M_bar ln M_bar, M_bar = M / sum M",
    paper="Schoettl 2020, arXiv 2009.12546",
    nan="dead map",
    takes=("maps",),
    function=entropy,
)

NORMALISED_ENTROPY = Measure(
    name="ce_normalised",
    low=0.0,
    high=1.0,
    direction="lower",
    formula="ce / ln(h w)",
    paper=ENTROPY.paper,
    nan="dead map, or a map of one position",
    takes=("maps",),
    function=normalised_entropy,
)
