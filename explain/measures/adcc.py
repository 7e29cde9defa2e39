"""ADCC: Average DCC, the harmonic mean of coherency, simplicity and confidence kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explain.measures.average_drop import average_drop
from explain.measures.coherency import coherency
from explain.measures.complexity import complexity
from explain.measures.masking import Predict
from explain.measures.measure import Measure

__all__ = ["ADCC", "adcc", "adcc_from"]


def adcc_from(coherency: Tensor, complexity: Tensor, average_drop: Tensor) -> Tensor:
    """3 / (1/Coherency + 1/(1 - Complexity) + 1/(1 - Average Drop)) from its three parts, (N,) each, or their means.

    0 where one of the three terms is 0, the limit of a harmonic mean; NaN where one of them is NaN.
    """
    terms = torch.stack([coherency, 1 - complexity, 1 - average_drop])
    return torch.where((terms == 0).any(dim=0) & ~terms.isnan().any(dim=0), 0, 3 / (1 / terms).sum(dim=0))


def adcc(
    maps: Tensor, images: Tensor, targets: Tensor, predict: Predict, explain: Callable[[Tensor], Tensor]
) -> Tensor:
    """3 / (1/Coherency + 1/(1 - Complexity) + 1/(1 - Average Drop)) by image.

    A harmonic mean; a widely copied implementation forgets the inverses.

    Args:
        maps: Non-negative, (N, h, w).
        images: As `predict` and `explain` take them, (N, C, H, W).
        targets: Explained classes, (N,).
        predict: From images to class probabilities (N, K).
        explain: Maps (N, h, w) of images for the same classes.

    Returns:
        Values in [0, 1], float64, (N,); NaN where one of the three parts is.
    """
    return adcc_from(
        coherency(maps, images, explain), complexity(maps), average_drop(maps, images, targets, predict).to(maps.device)
    )


ADCC = Measure(
    name="adcc",
    low=0.0,
    high=1.0,
    direction="higher",
    formula="3 / (1/Coherency + 1/(1 - Complexity) + 1/(1 - Average Drop))",
    paper="Poppi et al. 2021, arXiv 2104.10252",
    nan="coherency, complexity or average drop is NaN",
    takes=("maps", "images", "targets", "predict", "explain"),
    function=adcc,
)
