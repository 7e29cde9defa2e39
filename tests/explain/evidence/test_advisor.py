"""The advisor says what the thesis's Figure 11 says, and its prior never rules a depth out."""

from __future__ import annotations

import math

import pytest

from explain.evidence import SCORERS, Material, depth_prior, depth_scores
from explain.evidence.advisor import LARGE, SIMILAR_DISTANCE, SIMILAR_GAIN, advise


@pytest.mark.parametrize(
    ("images", "gain", "distance", "strategy", "depth"),
    [
        (10, 0.8, 0.3, "features only", 8),
        (10, 0.2, 0.3, "freeze the early blocks, train the rest", 5),
        (10, 0.8, 3.0, "freeze the early blocks, train the rest", 5),  # both must say so
        (10, math.nan, 0.3, "freeze the early blocks, train the rest", 5),
        (5000, 0.8, 0.3, "fine-tune everything", 0),
        (5000, 0.2, 0.3, "train from scratch", 0),
        (LARGE, SIMILAR_GAIN, SIMILAR_DISTANCE, "fine-tune everything", 0),
        (10, 0.8, None, "features only", 8),  # a network without batch-norm: the gain decides
    ],
)
def test_the_four_strategies(images: float, gain: float, distance: float | None, strategy: str, depth: int) -> None:
    advice = advise(8, images_per_class=images, gain=gain, distance=distance)
    assert (advice.strategy, advice.depth) == (strategy, depth)


def test_the_thesis_itself_would_have_been_told_to_freeze_three_of_five_blocks() -> None:
    assert advise(5, images_per_class=5819 / 11, gain=0.1).depth == 3


def test_the_prior_peaks_at_the_advised_depth_and_says_why(material: Material) -> None:
    scores = SCORERS["advisor"](material, images_per_class=10.0, gain=0.1, distance=0.4)
    prior = depth_prior(depth_scores(scores).values)
    assert prior.mode == 2 and prior.probabilities.min() > 0.04
    assert scores.notes[0].startswith("freeze the early blocks, train the rest: 10 images a class is small; probe gain")
