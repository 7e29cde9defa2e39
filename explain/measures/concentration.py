"""How concentrated a map is: measures that need the maps alone.

Each takes maps M, non-negative and of shape (N, h, w), with M_bar = M / sum M, and returns one value a map. A dead map
(zero everywhere) has no shape, so it is NaN to all but the dead-map rate. None of them says whether the map is *right*:
read them beside accuracy and faithfulness. They depend on h and w: compare a block with itself, not with other blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from explain.measures.measure import checked_maps, dead, measure, nan_where, share_of_max, share_of_sum

__all__ = [
    "complexity",
    "dead_map_rate",
    "dispersion",
    "elliptical_area",
    "elliptical_area_12",
    "entropy",
    "normalised_entropy",
    "relative_difference",
]

_SCHOETTL = "Schoettl 2020, arXiv 2009.12546"


@measure("ce", (0.0, math.inf), "lower", formula="-sum M_bar ln M_bar, M_bar = M / sum M", paper=_SCHOETTL)
def entropy(maps: Tensor) -> Tensor:
    """ce = -sum M_bar ln M_bar in nats, with 0 ln 0 = 0: how widely a map spreads over its positions.

    0 for a map of one pixel, ln(h w) for a uniform one. Lower is sharper, and no more than that: the sharpest map of
    all shows one pixel. Nearly one quantity with cd (Shannon against Renyi-2 entropy): never count the two as
    independent votes.

    Schoettl 2020, arXiv 2009.12546. Maps (N, h, w) -> ce in [0, ln(h w)], float64, (N,); NaN for a dead map.
    """
    maps = checked_maps(maps)
    return nan_where(dead(maps), torch.special.entr(share_of_sum(maps)).sum(dim=(1, 2)).clamp_min(0))


@measure(
    "ce_normalised",
    (0.0, 1.0),
    "lower",
    formula="ce / ln(h w)",
    paper=_SCHOETTL,
    nan="dead map, or a map of one position",
)
def normalised_entropy(maps: Tensor) -> Tensor:
    """ce / ln(h w). Maps (N, h, w) -> [0, 1], float64, (N,); NaN for a dead map and for a map of a single position.

    >>> normalised_entropy(torch.tensor([[[1.0, 1.0]], [[0.0, 5.0]], [[0.0, 0.0]]]))
    tensor([1., 0., nan], dtype=torch.float64)
    """
    positions = maps.shape[-2] * maps.shape[-1] if isinstance(maps, Tensor) and maps.ndim == 3 else 0
    values = entropy(maps)
    if positions == 1:
        return torch.full_like(values, math.nan)
    return (values / math.log(positions)).clamp_max(1)


@measure(
    "ca",
    (0.0, 0.25),
    "lower",
    formula="sqrt(l1 l2) of the covariance of (row, column) in [0, 1], weighted by M_bar",
    paper=_SCHOETTL,
)
def elliptical_area(maps: Tensor) -> Tensor:
    """ca = sqrt(l1 l2), the eigenvalues of the covariance of (row, column) weighted by M_bar: the ellipse M fills.

    Coordinates are pixel centres scaled to [0, 1], (i + 1/2) / h and (j + 1/2) / w. A uniform map gives
    sqrt((1 - 1/h^2) (1 - 1/w^2)) / 12, which is 1/12 up to the width of a pixel; mass on one pixel or one straight
    line gives 0; mass in the four corners gives the most, 1/4.

    Schoettl 2020, arXiv 2009.12546. Maps (N, h, w) -> ca in [0, 1/4], float64, (N,); NaN for a dead map.
    """
    maps = checked_maps(maps)
    mass = share_of_sum(maps)
    height, width = mass.shape[1:]
    rows = (torch.arange(height, dtype=mass.dtype, device=mass.device) + 0.5) / height
    columns = (torch.arange(width, dtype=mass.dtype, device=mass.device) + 0.5) / width
    by_row, by_column = mass.sum(dim=2), mass.sum(dim=1)
    row_offset = rows - (by_row @ rows)[:, None]
    column_offset = columns - (by_column @ columns)[:, None]
    row_variance = (by_row * row_offset**2).sum(dim=1)
    column_variance = (by_column * column_offset**2).sum(dim=1)
    covariance = torch.einsum("nhw,nh,nw->n", mass, row_offset, column_offset)
    determinant = row_variance * column_variance - covariance**2
    # The product of the eigenvalues is the determinant; on a line it is zero but for rounding.
    rounding = 1e-12 * row_variance * column_variance
    return nan_where(dead(maps), torch.where(determinant > rounding, determinant, 0).sqrt())


@measure("ca12", (0.0, 3.0), "lower", formula="12 ca", paper=_SCHOETTL)
def elliptical_area_12(maps: Tensor) -> Tensor:
    """12 ca: 1 for a uniform map, up to the width of a pixel.

    Maps (N, h, w) -> [0, 3], float64, (N,); NaN for a dead map.
    """
    return 12 * elliptical_area(maps)


@measure("cd", (0.0, math.inf), "higher", formula="var(M) / (mean(M)^2 + eps), eps = 1e-8 max(M)^2", paper=_SCHOETTL)
def dispersion(maps: Tensor, eps: float = 1e-8) -> Tensor:
    """cd = var(M) / (mean(M)^2 + eps max(M)^2), population variance: the squared coefficient of variation of M.

    0 for a uniform map, h w - 1 for a map of one pixel (at eps = 0). With eps = 0, cd = h w sum M_bar^2 - 1: a
    monotone function of the Renyi-2 entropy, so nearly one quantity with ce.

    Schoettl 2020, arXiv 2009.12546. Maps (N, h, w) -> cd in [0, h w - 1], float64, (N,); NaN for a dead map.

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


@measure(
    "relative_difference",
    (0.0, math.inf),
    "higher",
    formula="(max M - min M) / mean M",
    paper=f"own definition of a quantity named by {_SCHOETTL}",
)
def relative_difference(maps: Tensor) -> Tensor:
    """(max M - min M) / mean M. Our own definition: the source (arXiv 2009.12546) names it and does not define it.

    0 for a uniform map, h w for a map of one pixel. Maps (N, h, w) -> [0, h w], float64, (N,); NaN for a dead map.
    """
    maps = checked_maps(maps)
    scaled = share_of_max(maps)
    spread = scaled.amax(dim=(1, 2)) - scaled.amin(dim=(1, 2))
    return nan_where(dead(maps), spread / scaled.mean(dim=(1, 2)))


@measure(
    "dead_map_rate",
    (0.0, 1.0),
    "lower",
    formula="mean over images of 1[sum M = 0]",
    paper="own definition",
    nan="never",
)
def dead_map_rate(maps: Tensor) -> Tensor:
    """1[sum M = 0] by image; the mean over images is the rate. Report it beside the others, which are NaN there.

    Own definition. Maps (N, h, w) -> 0 or 1, float64, (N,); never NaN.
    """
    return dead(checked_maps(maps)).double()


@measure(
    "complexity", (0.0, 1.0), "lower", formula="|M / max M|_1 / (h w)", paper="Poppi et al. 2021, arXiv 2104.10252"
)
def complexity(maps: Tensor) -> Tensor:
    """L1 norm of M / max M, divided by h w: the share of the image a map covers. (Quantus' Complexity is ce instead.)

    Poppi et al. 2021, arXiv 2104.10252. Maps (N, h, w) -> [1 / (h w), 1], float64, (N,); NaN for a dead map.
    """
    maps = checked_maps(maps)
    return nan_where(dead(maps), share_of_max(maps).mean(dim=(1, 2)))
