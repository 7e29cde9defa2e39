"""Coherency: does explaining the explained part of the image give the same explanation?"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from explain.measures.masking import masked_images
from explain.measures.measure import Measure, checked_maps, nan_where, share_of_max

__all__ = ["COHERENCY", "coherency"]


def coherency(maps: Tensor, images: Tensor, explain: Callable[[Tensor], Tensor]) -> Tensor:
    """(Pearson(CAM(x), CAM(x * CAM(x))) + 1) / 2, over the positions of the map.

    Args:
        maps: CAM(x), non-negative, (N, h, w).
        images: x, as `explain` takes them, (N, C, H, W).
        explain: Maps (N, h, w) of images for the *same* classes as `maps`, by the same method and block.

    Returns:
        Values in [0, 1], float64, (N,); NaN where either map is constant, dead maps included.

    Raises:
        ValueError: `explain` returns maps of another shape.
    """
    again = checked_maps(explain(masked_images(maps, images)))
    if again.shape != maps.shape:
        raise ValueError(f"explain must return maps of shape {tuple(maps.shape)}, got {tuple(again.shape)}")
    return (pearson(checked_maps(maps), again) + 1) / 2


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Correlation over positions of maps (N, h, w), in [-1, 1], (N,); NaN where one of them is constant."""
    a, b = (share_of_max(maps).flatten(1) for maps in (one, other))
    constant = (a.amax(1) == a.amin(1)) | (b.amax(1) == b.amin(1))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norm = a.norm(dim=1) * b.norm(dim=1)
    return nan_where(constant, ((a * b).sum(1) / norm).clamp(-1, 1))


COHERENCY = Measure(
    name="coherency",
    low=0.0,
    high=1.0,
    direction="higher",
    formula="(Pearson(CAM(x), CAM(x * CAM(x))) + 1) / 2",
    paper="Poppi et al. 2021, arXiv 2104.10252",
    nan="one of the two maps is constant",
    takes=("maps", "images", "explain"),
    function=coherency,
)
