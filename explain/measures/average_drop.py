"""Average Drop: how much confidence is lost where only the map's part of the image is shown."""

from __future__ import annotations

from torch import Tensor

from explain.measures.masking import Predict, masked_probabilities
from explain.measures.measure import Measure, checked_maps, dead, nan_where

__all__ = ["AVERAGE_DROP", "average_drop", "drop_from"]


def drop_from(before: Tensor, after: Tensor) -> Tensor:
    """max(0, Y - Y_E) / Y from the two probabilities, (N,) each; NaN where Y = 0."""
    return nan_where(before == 0, (before - after).clamp_min(0) / before)


def average_drop(maps: Tensor, images: Tensor, targets: Tensor, predict: Predict) -> Tensor:
    """max(0, Y - Y_E) / Y by image; Y_E is the probability of the image times its map.

    Args:
        maps: Non-negative, (N, h, w).
        images: As `predict` takes them, (N, C, H, W).
        targets: Explained classes, (N,).
        predict: From images to class probabilities (N, K).

    Returns:
        Values in [0, 1], float64, (N,); their mean is the Average Drop. NaN for a dead map and where Y = 0.
    """
    before, after = masked_probabilities(maps, images, targets, predict)
    return nan_where(dead(checked_maps(maps)).to(before.device), drop_from(before, after))


AVERAGE_DROP = Measure(
    name="average_drop",
    low=0.0,
    high=1.0,
    direction="lower",
    formula="mean of max(0, Y - Y_E) / Y",
    paper="Chattopadhyay et al. 2018, arXiv 1710.11063",
    nan="dead map, or Y = 0",
    takes=("maps", "images", "targets", "predict"),
    function=average_drop,
)
