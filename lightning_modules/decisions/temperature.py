"""Temperature scaling: one number that makes a network's probabilities as sure as it is right."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST_IMAGES", "fit_temperature", "log_probabilities", "temperature_interval"]

FEWEST_IMAGES = 20
"""With fewer images the temperature says more of them than of the network: its 95 % interval spans a factor of two."""

_LOG_RANGE = (math.log(0.05), math.log(20))


def log_probabilities(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """ln softmax(logits / temperature), (N, C); logarithms of probabilities are logits too."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(1, keepdims=True)
    normalised: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
    return normalised


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature T in [0.05, 20] that makes the labels most likely under softmax(logits / T).

    Guo et al. 2017, arXiv 1706.04599: minimise the cross-entropy over T. A network that has every image right would be
    given T = 0, as if it could never be wrong, so the targets are Platt's (1999): the true class has (N + 1) / (N + 2)
    instead of 1, which is what N right answers of N allow to expect (Laplace's rule of succession), and the other
    classes share the rest. Their part vanishes as N grows. scikit-learn's temperature scaling
    (`CalibratedClassifierCV`) has no such targets.

    Args:
        logits: of images that the network was not trained on, (N, C), finite.
        labels: (N,), in 0..C-1.

    Raises:
        ValueError: no image, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar

    if not len(labels) or not np.isfinite(logits).all():
        raise ValueError(f"finite logits of at least one image are needed, got {logits.shape}")
    classes, rest = logits.shape[1], 1 / (len(labels) + 2)
    targets = np.full(logits.shape, rest / (classes - 1))
    targets[np.arange(len(labels)), labels] = 1 - rest

    def cross_entropy(log_temperature: float) -> float:
        return -float((targets * log_probabilities(logits, math.exp(log_temperature))).sum()) / len(labels)

    # Convex in 1 / T, so there is one minimum, in log T too.
    found = minimize_scalar(cross_entropy, bounds=_LOG_RANGE, method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x))


def temperature_interval(
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the fitted temperature, resampling whole groups (N,) of images."""
    _, place = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(place == group) for group in range(place.max() + 1)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([members[group] for group in rng.integers(0, len(members), len(members))])
        drawn.append(fit_temperature(logits[rows], labels[rows]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
