"""What becomes of the class when pixels are shown or removed in the order of the map: deletion, insertion, ROAD.

Arguments of every measure here:

- maps: non-negative, (N, h, w).
- images: as `predict` takes them, (N, C, H, W).
- targets: explained classes, int64, (N,).
- predict: from images to class probabilities (N, K).
- seed: decides the order of pixels on which the map ties (and ROAD's noise).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn import functional

from explain.attribution import upsample
from explain.measures.masking import Predict, class_probabilities
from explain.measures.measure import check_integer, checked_maps, dead, measure, nan_where, share_of_max

__all__ = ["blurred", "deletion", "impute", "insertion", "pixel_ranks", "road"]

# Four of the eight neighbours; the equations are symmetric, which gives the other four.
_HALF_NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))


@measure(
    "road",
    (-0.5, 0.5),
    "higher",
    formula="mean over fractions of (LeRF - MoRF) / 2",
    paper="Rong et al. 2022, arXiv 2202.00449",
)
def road(
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    predict: Predict,
    *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    noise: float = 0.01,
    seed: int = 0,
) -> Tensor:
    """Combined ROAD: mean over fractions of (LeRF - MoRF) / 2.

    MoRF and LeRF are the probabilities of the target class after the most and the least relevant fraction of the
    pixels has been imputed. A map without information scores 0. Rong et al. 2022, arXiv 2202.00449.

    Args:
        fractions: Shares of pixels removed, each above 0 and below 1.
        noise: Standard deviation added to imputed values, in units of `images`; >= 0.

    Returns:
        Values in [-1/2, 1/2], float64, (N,); NaN for a dead map.

    Raises:
        ValueError: A fraction outside (0, 1), none at all, or a negative `noise`.
    """
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(f"fractions must lie above 0 and below 1, got {tuple(fractions)}")
    if not noise >= 0:
        raise ValueError(f"noise must be >= 0, got {noise}")
    height, width = images.shape[2:]
    ranks = pixel_ranks(maps, (height, width), seed)
    pixels = ranks.shape[1]
    generator = torch.Generator().manual_seed(seed)
    values = torch.zeros(len(images), dtype=torch.float64, device=maps.device)
    for fraction in fractions:
        count = min(max(round(fraction * pixels), 1), pixels - 1)
        for removed, sign in ((ranks >= pixels - count, 1), (ranks < count, -1)):
            masks = removed.reshape(-1, height, width)
            changed = torch.stack([impute(image, mask) for image, mask in zip(images, masks, strict=True)])
            disturbance = noise * torch.randn(images.shape, generator=generator)
            changed = changed + (disturbance * masks[:, None]).to(images)
            values += sign * class_probabilities(predict, changed, targets).to(values.device)
    return nan_where(dead(checked_maps(maps)), values / (2 * len(fractions)))


def impute(image: Tensor, removed: Tensor) -> Tensor:
    """Replace pixels by the weighted mean of their eight neighbours, solved for all removed pixels at once.

    Weights are 1/6 for direct and 1/12 for diagonal neighbours, in the image's interior; at its border the
    remaining weights are scaled to sum to one. Gives the whole image, (C, H, W).

    Args:
        image: (C, H, W).
        removed: bool, (H, W); at least one pixel must stay.

    Raises:
        ValueError: Every pixel is removed.
    """
    gone = removed.flatten().cpu().numpy()
    if gone.all():
        raise ValueError("removed must leave at least one pixel, got all of them removed")
    if not gone.any():
        return image.clone()
    values = image.detach().flatten(1).T.double().cpu().numpy()
    unknown = np.cumsum(gone) - 1
    place = np.arange(gone.size).reshape(removed.shape)
    diagonal, known = np.zeros(gone.size), np.zeros_like(values)
    rows, columns, entries = [], [], []
    height, width = removed.shape
    for down, right, weight in _HALF_NEIGHBOURS:
        one = place[: height - down, max(0, -right) : width - max(0, right)].ravel()
        other = place[down:, max(0, right) : width + min(0, right)].ravel()
        for here, there in ((one, other), (other, one)):
            diagonal[here] += weight
            inner = gone[here] & gone[there]
            rows.append(unknown[here[inner]])
            columns.append(unknown[there[inner]])
            entries.append(np.full(int(inner.sum()), -weight))
            edge = gone[here] & ~gone[there]
            known[here[edge]] += weight * values[there[edge]]
    count = int(gone.sum())
    rows.append(np.arange(count))
    columns.append(np.arange(count))
    entries.append(diagonal[gone])
    system = coo_matrix(
        (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    ).tocsc()
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    values[gone] = factors.solve(known[gone])
    return torch.from_numpy(values.T.reshape(image.shape).copy()).to(image)


@measure(
    "insertion",
    (0.0, 1.0),
    "higher",
    formula="area under p(class) over the share of most relevant pixels inserted into the blurred image",
    paper="Petsiuk et al. 2018, arXiv 1806.07421",
)
def insertion(
    maps: Tensor, images: Tensor, targets: Tensor, predict: Predict, *, steps: int = 20, seed: int = 0
) -> Tensor:
    """Area under the probability of the target class while the most relevant pixels of a blurred image become sharp.

    Petsiuk et al. 2018, arXiv 1806.07421.

    Args:
        steps: Equal steps from no pixel to all pixels, >= 1.

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map.

    Raises:
        ValueError: Fewer than one step.
    """
    return _area(maps, blurred(images), images, targets, predict, steps, seed)


@measure(
    "deletion",
    (0.0, 1.0),
    "lower",
    formula="area under p(class) over the share of most relevant pixels deleted",
    paper="Petsiuk et al. 2018, arXiv 1806.07421",
)
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

    Petsiuk et al. 2018, arXiv 1806.07421.

    Args:
        steps: Equal steps from no pixel to all pixels, >= 1.
        baseline: Value of deleted pixels, in units of `images` (0 is the mean colour of normalised images).

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map.

    Raises:
        ValueError: Fewer than one step.
    """
    return _area(maps, images, torch.full_like(images, baseline), targets, predict, steps, seed)


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
    check_integer("steps", steps, 1)
    height, width = start.shape[2:]
    ranks = pixel_ranks(maps, (height, width), seed)
    pixels = ranks.shape[1]
    curve = []
    for step in range(steps + 1):
        changed = (ranks < round(step * pixels / steps)).reshape(-1, 1, height, width).to(start.device)
        curve.append(class_probabilities(predict, torch.where(changed, end, start), targets))
    area = torch.trapezoid(torch.stack(curve), dx=1 / steps, dim=0)
    return nan_where(dead(checked_maps(maps)).to(area.device), area)


def pixel_ranks(maps: Tensor, size: tuple[int, int], seed: int) -> Tensor:
    """Rank of every pixel by its up-sampled map, 0 the most relevant.

    Ties, such as the zeros of a rectified map, are broken at random, so that no corner of the image is favoured.

    Args:
        maps: Non-negative, (N, h, w).
        size: Height and width H, W of the images in pixels.

    Returns:
        int64, (N, H W), each row a permutation of 0 .. H W - 1.
    """
    flat = upsample(share_of_max(checked_maps(maps)), size).flatten(1).cpu()
    generator = torch.Generator().manual_seed(seed)
    shuffle = torch.stack([torch.randperm(flat.shape[1], generator=generator) for _ in range(len(flat))])
    order = shuffle.gather(1, flat.gather(1, shuffle).argsort(dim=1, descending=True, stable=True))
    return torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1]).expand_as(order))
