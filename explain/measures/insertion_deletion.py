"""Insertion and deletion: confidence while pixels appear or vanish in the order of the map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from explain.measures.masking import Predict, class_probabilities
from explain.measures.measure import Measure, checked_maps, dead, nan_where
from explain.measures.ranking import pixel_ranks

__all__ = ["DELETION", "INSERTION", "blurred", "deletion", "insertion"]


def deletion(
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    predict: Predict,
    *,
    steps: int = 20,
    baseline: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Area under the probability of the target class while the most relevant pixels are set to a baseline.

    Args:
        maps: Non-negative, (N, h, w).
        images: As `predict` takes them, (N, C, H, W).
        targets: Explained classes, (N,).
        predict: From images to class probabilities (N, K).
        steps: Equal steps from no pixel to all pixels, >= 1.
        baseline: Value of deleted pixels, in units of `images` (0 is the mean colour of normalised images).
        seed: Decides ties.

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map.

    Raises:
        ValueError: Fewer than one step.
    """
    return _area(maps, images, torch.full_like(images, baseline), targets, predict, steps, seed)


def insertion(
    maps: Tensor, images: Tensor, targets: Tensor, predict: Predict, *, steps: int = 20, seed: int = 0
) -> Tensor:
    """Area under the probability of the target class while the most relevant pixels of a blurred image become sharp.

    Args:
        maps: Non-negative, (N, h, w).
        images: As `predict` takes them, (N, C, H, W).
        targets: Explained classes, (N,).
        predict: From images to class probabilities (N, K).
        steps: Equal steps from no pixel to all pixels, >= 1.
        seed: Decides ties.

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map.

    Raises:
        ValueError: Fewer than one step.
    """
    return _area(maps, blurred(images), images, targets, predict, steps, seed)


def blurred(images: Tensor, size: int = 11, sigma: float = 5.0) -> Tensor:
    """Gaussian blur with the kernel of the paper, borders repeated, (N, C, H, W).

    Args:
        images: (N, C, H, W).
        size: Width of the kernel in pixels, odd.
        sigma: Standard deviation in pixels, > 0.
    """
    channels = images.shape[1]
    offsets = torch.arange(size, dtype=images.dtype, device=images.device) - size // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, size)
    padded = functional.pad(images, [size // 2] * 4, mode="replicate")
    vertical = functional.conv2d(padded, kernel[..., None], groups=channels)
    return functional.conv2d(vertical, kernel[:, :, None], groups=channels)


def _area(maps: Tensor, start: Tensor, end: Tensor, targets: Tensor, predict: Predict, steps: int, seed: int) -> Tensor:
    """Mean probability, by the trapezoid rule, on the way from `start` to `end`, most relevant pixels first."""
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an integer, got {steps!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    height, width = start.shape[2:]
    ranks = pixel_ranks(maps, (height, width), seed)
    pixels = ranks.shape[1]
    curve = []
    for step in range(steps + 1):
        changed = (ranks < round(step * pixels / steps)).reshape(-1, 1, height, width).to(start.device)
        curve.append(class_probabilities(predict, torch.where(changed, end, start), targets))
    area = torch.trapezoid(torch.stack(curve), dx=1 / steps, dim=0)
    return nan_where(dead(checked_maps(maps)).to(area.device), area)


DELETION = Measure(
    name="deletion",
    low=0.0,
    high=1.0,
    direction="lower",
    formula="area under p(class) over the share of most relevant pixels deleted",
    paper="Petsiuk et al. 2018, arXiv 1806.07421",
    nan="dead map",
    takes=("maps", "images", "targets", "predict"),
    function=deletion,
)

INSERTION = Measure(
    name="insertion",
    low=0.0,
    high=1.0,
    direction="higher",
    formula="area under p(class) over the share of most relevant pixels inserted into the blurred image",
    paper="Petsiuk et al. 2018, arXiv 1806.07421",
    nan="dead map",
    takes=("maps", "images", "targets", "predict"),
    function=insertion,
)
