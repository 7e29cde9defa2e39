"""Does the model answer by what the map shows? Measures that show it the image seen through its map.

Y is the probability of the target class on the image, Y_E on the image times its up-sampled map M / max M
(`masking.masked_probabilities`). Arguments of every measure here:

- maps: M, non-negative, (N, h, w).
- images: as `predict` and `explain` take them, (N, C, H, W).
- targets: explained classes, int64, (N,).
- predict: from images to class probabilities (N, K).
- explain: maps (N, h, w) of images for the *same* classes, by the same method and block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explain.measures.concentration import complexity
from explain.measures.masking import Predict, masked_images, masked_probabilities
from explain.measures.measure import checked_maps, dead, measure, nan_where, share_of_max

__all__ = [
    "adcc",
    "adcc_from",
    "average_drop",
    "coherency",
    "drop_from",
    "increase",
    "pearson",
]


@measure(
    "average_drop",
    (0.0, 1.0),
    "lower",
    formula="mean of max(0, Y - Y_E) / Y",
    paper="Chattopadhyay et al. 2018, arXiv 1710.11063",
    nan="dead map, or Y = 0",
)
def average_drop(maps: Tensor, images: Tensor, targets: Tensor, predict: Predict) -> Tensor:
    """max(0, Y - Y_E) / Y by image, the confidence lost where only the map's part of the image is shown.

    The mean over images is the Average Drop. Chattopadhyay et al. 2018, arXiv 1710.11063.

    Returns:
        Values in [0, 1], float64, (N,); NaN for a dead map and where Y = 0.
    """
    before, after = masked_probabilities(maps, images, targets, predict)
    return nan_where(dead(checked_maps(maps)).to(before.device), drop_from(before, after))


def drop_from(before: Tensor, after: Tensor) -> Tensor:
    """max(0, Y - Y_E) / Y from the two probabilities, (N,) each; NaN where Y = 0."""
    return nan_where(before == 0, (before - after).clamp_min(0) / before)


@measure(
    "increase", (0.0, 1.0), "higher", formula="mean of 1[Y_E > Y]", paper="Chattopadhyay et al. 2018, arXiv 1710.11063"
)
def increase(maps: Tensor, images: Tensor, targets: Tensor, predict: Predict) -> Tensor:
    """1[Y_E > Y] by image; the mean over images is the Increase in Confidence.

    Chattopadhyay et al. 2018, arXiv 1710.11063.

    Returns:
        0 or 1, float64, (N,); NaN for a dead map.
    """
    before, after = masked_probabilities(maps, images, targets, predict)
    return nan_where(dead(checked_maps(maps)).to(before.device), (after > before).double())


@measure(
    "coherency",
    (0.0, 1.0),
    "higher",
    formula="(Pearson(CAM(x), CAM(x * CAM(x))) + 1) / 2",
    paper="Poppi et al. 2021, arXiv 2104.10252",
    nan="one of the two maps is constant",
)
def coherency(maps: Tensor, images: Tensor, explain: Callable[[Tensor], Tensor]) -> Tensor:
    """(Pearson(CAM(x), CAM(x * CAM(x))) + 1) / 2 over positions: does the explained part get the same explanation?

    Poppi et al. 2021, arXiv 2104.10252.

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


@measure(
    "adcc",
    (0.0, 1.0),
    "higher",
    formula="3 / (1/Coherency + 1/(1 - Complexity) + 1/(1 - Average Drop))",
    paper="Poppi et al. 2021, arXiv 2104.10252",
    nan="coherency, complexity or average drop is NaN",
)
def adcc(
    maps: Tensor, images: Tensor, targets: Tensor, predict: Predict, explain: Callable[[Tensor], Tensor]
) -> Tensor:
    """3 / (1/Coherency + 1/(1 - Complexity) + 1/(1 - Average Drop)) by image.

    A harmonic mean; a widely copied implementation forgets the inverses. Poppi et al. 2021, arXiv 2104.10252.

    Returns:
        Values in [0, 1], float64, (N,); NaN where one of the three parts is.
    """
    return adcc_from(
        coherency(maps, images, explain), complexity(maps), average_drop(maps, images, targets, predict).to(maps.device)
    )


def adcc_from(coherency: Tensor, complexity: Tensor, average_drop: Tensor) -> Tensor:
    """ADCC from its three parts, (N,) each, or their means.

    0 where one of the three terms is 0, the limit of a harmonic mean; NaN where one of them is NaN.
    """
    terms = torch.stack([coherency, 1 - complexity, 1 - average_drop])
    return torch.where((terms == 0).any(dim=0) & ~terms.isnan().any(dim=0), 0, 3 / (1 / terms).sum(dim=0))
