"""Labels that a network which has not seen the image contradicts with confidence.

Confident learning (Northcutt, Jiang and Chuang 2021, doi 10.1613/jair.1.12125): the threshold of a class is the mean
probability that it is given over the images with that label, t_j = mean of p_j over y = j. An image with label i is
suspect where some other class j reaches its threshold, p_j >= t_j, and is the most probable of those that do, and its
own label does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SuspectLabel", "suspect_labels"]


@dataclass(frozen=True)
class SuspectLabel:
    """One doubtful label.

    Attributes:
        place: of the image among those judged.
        suggested: the class that is more likely.
        threshold: of that class.
    """

    place: int
    suggested: int
    threshold: float


def suspect_labels(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> list[SuspectLabel]:
    """Doubtful labels, the largest excess of probability over that of the label first.

    Args:
        probabilities: out-of-sample class probabilities, (N, K).
        labels: given labels, (N,).

    Raises:
        ValueError: shapes that do not match.
    """
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise ValueError(f"probabilities must be (N, K) of {len(labels)} labels, got {probabilities.shape}")
    if not len(labels):
        return []
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    # A class without a judged image has no threshold and is never suggested.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = probabilities >= thresholds - 1e-9  # a mean of equal numbers is not quite that number
    confident = np.where(reached, probabilities, -1.0)
    suggested = confident.argmax(1)
    doubtful = np.flatnonzero(
        reached.any(1) & (suggested != labels) & (own < thresholds[labels]) & (probabilities.max(1) > own)
    )
    ordered = sorted(doubtful.tolist(), key=lambda n: (own[n] - probabilities[n, suggested[n]], n))
    return [SuspectLabel(n, int(suggested[n]), float(thresholds[suggested[n]])) for n in ordered]
