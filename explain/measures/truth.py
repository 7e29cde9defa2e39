"""Where the defect really is: masks, and boxes turned into masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explain.measures.measure import checked_maps

__all__ = ["boxes_to_masks", "checked_truth"]


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
