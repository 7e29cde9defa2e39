"""CAM dispersion: squared coefficient of variation of a map."""

from __future__ import annotations

import math

from torch import Tensor

from explain.measures.measure import Measure, checked_maps, dead, nan_where, share_of_max

__all__ = ["DISPERSION", "dispersion"]


def dispersion(maps: Tensor, eps: float = 1e-8) -> Tensor:
    """cd = var(M) / (mean(M)^2 + eps max(M)^2), population variance over positions.

    0 for a uniform map, h w - 1 for a map of one pixel (at eps = 0). With eps = 0, cd = h w sum M_bar^2 - 1: a
    monotone function of the Renyi-2 entropy, so nearly one quantity with ce.

    Args:
        maps: Non-negative, (N, h, w).
        eps: Share of the squared maximum added to the denominator, >= 0.

    Returns:
        cd in [0, h w - 1], float64, (N,); NaN for a dead map.

    Raises:
        ValueError: A negative `eps`.
    """
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    maps = checked_maps(maps)
    # cd does not change when M is divided by max M, and then eps needs no factor.
    scaled = share_of_max(maps)
    variance, mean = scaled.var(dim=(1, 2), correction=0), scaled.mean(dim=(1, 2))
    return nan_where(dead(maps), variance / (mean**2 + eps))


DISPERSION = Measure(
    name="cd",
    low=0.0,
    high=math.inf,
    direction="higher",
    formula="var(M) / (mean(M)^2 + eps), eps = 1e-8 max(M)^2",
    paper="Schoettl 2020, arXiv 2009.12546",
    nan="dead map",
    takes=("maps",),
    function=dispersion,
)
