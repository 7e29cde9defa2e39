"""Increase in confidence: how often showing only the map's part of the image raises confidence."""

from __future__ import annotations

from torch import Tensor

from explain.measures.masking import Predict, masked_probabilities
from explain.measures.measure import Measure, checked_maps, dead, nan_where

__all__ = ["INCREASE", "increase"]


def increase(maps: Tensor, images: Tensor, targets: Tensor, predict: Predict) -> Tensor:
    """1[Y_E > Y] by image; Y_E is the probability of the image times its map.

    Args:
        maps: Non-negative, (N, h, w).
        images: As `predict` takes them, (N, C, H, W).
        targets: Explained classes, (N,).
        predict: From images to class probabilities (N, K).

    Returns:
        0 or 1, float64, (N,); their mean is the Increase in Confidence. NaN for a dead map.
    """
    before, after = masked_probabilities(maps, images, targets, predict)
    return nan_where(dead(checked_maps(maps)).to(before.device), (after > before).double())


INCREASE = Measure(
    name="increase",
    low=0.0,
    high=1.0,
    direction="higher",
    formula="mean of 1[Y_E > Y]",
    paper="Chattopadhyay et al. 2018, arXiv 1710.11063",
    nan="dead map",
    takes=("maps", "images", "targets", "predict"),
    function=increase,
)
