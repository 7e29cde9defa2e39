"""ROAD: remove and debias, with pixels replaced by noisy linear imputation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from explain.measures.masking import Predict, class_probabilities
from explain.measures.measure import Measure, checked_maps, dead, nan_where
from explain.measures.ranking import pixel_ranks

__all__ = ["ROAD", "impute", "road"]

# Four of the eight neighbours; the equations are symmetric, which gives the other four.
_HALF_NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))


def impute(image: Tensor, removed: Tensor) -> Tensor:
    """Replace pixels by the weighted mean of their eight neighbours, solved for all removed pixels at once.

    Weights are 1/6 for direct and 1/12 for diagonal neighbours, in the image's interior; at its border the
    remaining weights are scaled to sum to one.

    Args:
        image: (C, H, W).
        removed: bool, (H, W); at least one pixel must stay.

    Returns:
        The image with new values at the removed pixels, (C, H, W).

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
    pixels has been imputed. A map without information scores 0.

    Args:
        maps: Non-negative, (N, h, w).
        images: As `predict` takes them, (N, C, H, W).
        targets: Explained classes, (N,).
        predict: From images to class probabilities (N, K).
        fractions: Shares of pixels removed, each above 0 and below 1.
        noise: Standard deviation added to imputed values, in units of `images`; >= 0.
        seed: Decides ties and noise.

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


ROAD = Measure(
    name="road",
    low=-0.5,
    high=0.5,
    direction="higher",
    formula="mean over fractions of (LeRF - MoRF) / 2",
    paper="Rong et al. 2022, arXiv 2202.00449",
    nan="dead map",
    takes=("maps", "images", "targets", "predict"),
    function=road,
)
