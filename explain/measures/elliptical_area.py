"""CAM elliptical area: the size of the ellipse a map's mass fills."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.measures.measure import Measure, checked_maps, dead, nan_where, share_of_sum

__all__ = ["ELLIPTICAL_AREA", "ELLIPTICAL_AREA_12", "elliptical_area", "elliptical_area_12"]


def elliptical_area(maps: Tensor) -> Tensor:
    """ca = sqrt(l1 l2), the eigenvalues of the covariance of (row, column) weighted by M_bar.

    Coordinates are pixel centres scaled to [0, 1], (i + 1/2) / h and (j + 1/2) / w. A uniform map gives
    sqrt((1 - 1/h^2) (1 - 1/w^2)) / 12, which is 1/12 up to the width of a pixel; mass on one pixel or one straight
    line gives 0; mass in the four corners gives the most, 1/4.

    Args:
        maps: Non-negative, (N, h, w).

    Returns:
        ca in [0, 1/4], float64, (N,); NaN for a dead map.
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


def elliptical_area_12(maps: Tensor) -> Tensor:
    """12 ca: 1 for a uniform map, up to the width of a pixel.

    Args:
        maps: Non-negative, (N, h, w).

    Returns:
        12 ca in [0, 3], float64, (N,); NaN for a dead map.
    """
    return 12 * elliptical_area(maps)


ELLIPTICAL_AREA = Measure(
    name="ca",
    low=0.0,
    high=0.25,
    direction="lower",
    formula="sqrt(l1 l2) of the covariance of (row, column) in [0, 1], weighted by M_bar",
    paper="Schoettl 2020, arXiv 2009.12546",
    nan="dead map",
    takes=("maps",),
    function=elliptical_area,
)

ELLIPTICAL_AREA_12 = Measure(
    name="ca12",
    low=0.0,
    high=3.0,
    direction="lower",
    formula="12 ca",
    paper=ELLIPTICAL_AREA.paper,
    nan="dead map",
    takes=("maps",),
    function=elliptical_area_12,
)
