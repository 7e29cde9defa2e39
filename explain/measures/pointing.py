"""Does the map lie on the defect? Pointing games against masks, or boxes turned into masks.

Maps are non-negative, (N, h, w); truth is bool, (N, H, W), and boxes become such masks by `boxes_to_masks`. A uniform
map scores the share of the image the truth covers, which is chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from explain.attribution import upsample
from explain.measures.measure import checked_maps, dead, measure, nan_where, share_of_max, share_of_sum

__all__ = [
    "boxes_to_masks",
    "checked_truth",
    "energy_pointing",
    "pointing_game",
]


@measure(
    "pointing_game",
    (0.0, 1.0),
    "higher",
    formula="share of the arg-max of M inside the truth",
    paper="Zhang et al. 2016, arXiv 1608.00507",
    nan="dead map, or an image without truth",
)
def pointing_game(maps: Tensor, truth: Tensor, *, tolerance: int = 0) -> Tensor:
    """1 if the arg-max of the up-sampled map lies inside the truth, else 0.

    Where several pixels share the maximum the value is the share of them inside. Zhang et al. 2016, arXiv 1608.00507.

    Args:
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


@measure(
    "energy_pointing",
    (0.0, 1.0),
    "higher",
    formula="sum of M inside the truth / sum of M",
    paper="Wang et al. 2020, arXiv 1910.01279",
    nan="dead map, or an image without truth",
)
def energy_pointing(maps: Tensor, truth: Tensor) -> Tensor:
    """Share of the up-sampled map's sum that lies inside the truth.

    Wang et al. 2020, arXiv 1910.01279.

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map and for an image without truth.
    """
    maps, truth = checked_truth(maps, truth)
    height, width = truth.shape[1:]
    mass = share_of_sum(upsample(share_of_max(maps), (height, width)))
    values = (mass * truth).sum(dim=(1, 2)).clamp(0, 1)
    return nan_where(dead(maps) | ~truth.flatten(1).any(dim=1), values)


def boxes_to_masks(boxes: Sequence[Sequence[tuple[float, float, float, float]]], size: tuple[int, int]) -> Tensor:
    """Masks of images from their boxes; boxes of one image are united.

    Args:
        boxes: For each of the N images its boxes (x_min, y_min, x_max, y_max) in pixels, edges of the box, so that a
            box covers every pixel whose centre lies inside.
        size: Height and width H, W of the images in pixels.

    Returns:
        bool, (N, H, W).

    Raises:
        ValueError: A box whose maximum is not above its minimum.

    Example:
        >>> boxes_to_masks([[(1, 0, 3, 1)]], (2, 4)).int()
        tensor([[[0, 1, 1, 0],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """
    height, width = size
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    for mask, of_image in zip(masks, boxes, strict=True):
        for box in of_image:
            x_min, y_min, x_max, y_max = box
            if not (x_min < x_max and y_min < y_max):
                raise ValueError(f"a box must be (x_min, y_min, x_max, y_max) with max above min, got {tuple(box)}")
            mask |= ((rows > y_min) & (rows < y_max))[:, None] & ((columns > x_min) & (columns < x_max))
    return masks


def checked_truth(maps: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The maps in float64 and the truth on their device, after checking both.

    Raises:
        TypeError: `truth` is not a bool tensor.
        ValueError: Another number of masks than of maps, or masks that are not (N, H, W).
    """
    maps = checked_maps(maps)
    if not isinstance(truth, Tensor) or truth.dtype != torch.bool:
        raise TypeError(f"truth must be a bool tensor, got {getattr(truth, 'dtype', type(truth).__name__)}")
    if truth.ndim != 3 or len(truth) != len(maps):
        raise ValueError(f"truth must be masks (N, H, W) with N = {len(maps)}, got shape {tuple(truth.shape)}")
    return maps, truth.to(maps.device)
