"""How well probabilities keep their word: bins of a reliability diagram, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reliability", "ReliabilityBin", "reliability"]

_BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence, the probability of the predicted class, lies in (low, high].

    Attributes:
        confidence: its mean.
        accuracy: share of them that is right, with its exact 95 % interval, as if images were independent.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy.

    Attributes:
        ece: expected calibration error, in [0, 1].
        low, high: its 95 % percentile bootstrap interval over groups of images. The error is a sum of absolute values,
            so noise raises it, and the interval lies high with few images.
        chance: mean error of as many images if every probability were true: what is not above it shows nothing
            (consistency resampling: Broecker and Smith 2007, doi 10.1175/WAF993.1).
        bins: those that hold images, by confidence.
    """

    images: int
    ece: float
    low: float
    high: float
    chance: float
    bins: tuple[ReliabilityBin, ...]


def reliability(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Reliability:
    """Reliability of probabilities (N, C) of N >= 1 images with labels (N,) in groups (N,).

    ECE = sum over 15 bins of equal width of images / N * |accuracy - confidence| (Naeini, Cooper and Hauskrecht 2015;
    Guo et al. 2017, arXiv 1706.04599).
    """
    from scipy.stats import binomtest

    sure = probabilities.max(1)
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    place = np.clip(np.ceil(sure * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    rng = np.random.default_rng(seed)
    _, group = np.unique(groups, return_inverse=True)
    gap = sure - right
    drawn = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, group.max() + 1, group.max() + 1), minlength=group.max() + 1)[group]
        drawn.append(_error(place, gap, times))
    chance = [_error(place, sure - (rng.random(len(sure)) < sure)) for _ in range(resamples)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    bins = []
    for number in np.unique(place).tolist():
        inside = place == number
        hits, images = int(right[inside].sum()), int(inside.sum())
        ends = binomtest(hits, images).proportion_ci(0.95, "exact")
        confidence = float(sure[inside].mean())
        edges = number / _BINS, (number + 1) / _BINS
        bins.append(ReliabilityBin(*edges, images, confidence, hits / images, float(ends.low), float(ends.high)))
    return Reliability(len(sure), _error(place, gap), float(low), float(high), float(np.mean(chance)), tuple(bins))


def _error(place: NDArray[np.int64], gap: NDArray[np.float64], times: NDArray[np.int64] | None = None) -> float:
    """The error of images that count so many times, from what their confidence is above their being right."""
    weighed = gap if times is None else gap * times
    total = len(place) if times is None else times.sum()
    return float(np.abs(np.bincount(place, weights=weighed, minlength=_BINS)).sum() / total)
