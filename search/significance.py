"""Tests and intervals for two models on the same images, for two samples of images, and for several tests at once.

Two models on the same images: Tango's interval, what McNemar's test can find, Fisher's test, a paired bootstrap. Two
samples, or answers and labels: permutation tests. Two independent shares: Newcombe's interval. Several tests: Holm.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, binomtest, hypergeom, norm

__all__ = [
    "associated", "chi_square", "fall_p_value", "holm", "macro_f1_draws", "memberships", "newcombe_interval",
    "paired_interval", "permutation_p_value", "smallest_detectable", "squared_mmd",
]  # fmt: skip

Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]
Members = NDArray[np.bool_]

_LEVEL, _POWER = 0.05, 0.8
_PERMUTATIONS = 499


def paired_interval(gained: int, lost: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for the difference of two proportions of the same n images, (gained - lost) / n.

    The ends are the differences d at which the score statistic

        (gained - lost - n d) / sqrt(n (2 q + d (1 - d)))

    is +-z, with q the likelihood's maximum for the share lost where the difference is d. A bootstrap would give an
    interval of width 0 where no image is discordant; this one stays as wide as n images allow.

    Source: Tango 1998, Statistics in Medicine 17, 891-908.

    Args:
        gained: images that the second model alone has right, >= 0.
        lost: images that the first alone has right, >= 0.
        n: images, >= gained + lost.
        level: of the interval, in (0, 1).
    """
    z = float(norm.isf((1 - level) / 2))

    def statistic(d: float) -> float:
        a, b, c = 2 * n, -gained - lost + (2 * n - gained + lost) * d, -lost * d * (1 - d)
        q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        spread = math.sqrt(max(n * (2 * q + d * (1 - d)), 0.0))
        return (gained - lost - n * d) / max(spread, 1e-300)

    # The statistic falls with d.
    observed = (gained - lost) / n
    low = -1.0 if lost == n else _root(lambda d: statistic(d) <= z, -1.0, observed)
    high = 1.0 if gained == n else _root(lambda d: statistic(d) <= -z, observed, 1.0)
    return low, high


def smallest_detectable(n: int, discordant: int) -> float:
    """The smallest true difference of accuracy that McNemar's exact test (5 %) on n images finds with 80 % power.

    The discordant share psi is taken as observed, and as the difference d itself where that is larger: with psi = d
    all discordant images go one way. Exact: the sum over the number D ~ Binomial(n, psi) of discordant images of the
    probability that Binomial(D, (1 + d / psi) / 2) lies in the two-sided rejection region. For large n it is about
    the d that solves sqrt(n) d = z(0.025) sqrt(psi) + z(0.2) sqrt(psi - d^2) (Connor 1987, Biometrics 43).

    Args:
        n: images, >= 1.
        discordant: of them, images that exactly one of the two models has right.

    Returns:
        Difference in (0, 1]; 1 where even a difference of 1 is not found, as with five images.
    """
    many = np.arange(n + 1)
    # Rejected where at least `needed` of D go one way; D + 1 where no outcome is rejected.
    needed = np.minimum(binom.isf(_LEVEL / 2, many, 0.5) + 1, many + 1)

    def found(d: float) -> bool:
        psi = max(discordant / n, d)
        share = min((1 + d / psi) / 2, 1.0)
        rejected = binom.sf(needed - 1, many, share) + binom.cdf(many - needed, many, share)
        return float(binom.pmf(many, n, psi) @ rejected) >= _POWER

    return _root(found, 0.0, 1.0) if found(1.0) else 1.0


def _root(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where `holds` turns from false to true between low and high."""
    for _ in range(48):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def fall_p_value(champion: int, challenger: int, images: int) -> float:
    """Probability of so few hits of the challenger, or fewer, were its recall that of the champion: Fisher, one-sided.

    Exact, given how many answers of the two together are right. It treats the two models' answers as independent; two
    models of one task tend to be right on the same images, which makes it careful rather than rash. The sign test on
    discordant images would need five images before it could reject anything; this one needs three (3 of 3 against 0
    of 3 gives 1/20), and 2 of 3 against 3 of 3 gives 1/2.

    Args:
        champion: its hits, 0..images; `challenger` likewise.
        images: of the class, >= 1.
    """
    return float(hypergeom.cdf(challenger, 2 * images, champion + challenger, images))


def macro_f1_draws(
    truth: Labels, first: Labels, second: Labels, classes: int, *, resamples: int, seed: int
) -> tuple[tuple[float, float], Numbers]:
    """Macro F1 of two models, and the differences of resampled images, in pairs and within each true class.

    Within classes, since a resample without one of the rare classes would be of another quantity; so the interval is
    for months of this mix of classes. A class with one image contributes no spread.

    Args:
        truth: true classes 0..C-1, (N,).
        first: predictions of the first model, (N,); `second` likewise.
        resamples: B, how many.

    Returns:
        Both scores, and second minus first in each resample, (B,). The mean is over classes that occur in `truth`,
        `first` or `second`, the same for both and for all resamples.
    """
    # What is resampled is how often each (true, first, second) triple occurs.
    triples, counts = np.unique(np.stack([truth, first, second]), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    hit, both = np.zeros((2, 2, 1 + resamples, classes))  # of each model; both: true and predicted images of a class
    for label in np.unique(truth):
        inside = triples[0] == label
        images = counts[inside].sum()
        drawn = np.vstack([counts[inside], rng.multinomial(images, counts[inside] / images, size=resamples)])
        both[:, :, label] += images
        for model, answers in enumerate(triples[1:, inside]):
            hit[model, :, label] = drawn[:, answers == label].sum(axis=1)
            for answer, column in zip(answers, drawn.T, strict=True):
                both[model, :, answer] += column
    one, other = (2 * hit / np.maximum(both, 1))[:, :, np.unique(triples)].mean(axis=2)
    return (float(one[0]), float(other[0])), other[1:] - one[1:]


def newcombe_interval(right: int, images: int, new_right: int, new_images: int) -> tuple[float, float, float]:
    """Difference of two independent shares, first minus second, with its 95 % interval (Newcombe 1998, method 10)."""
    r, a = right / images, new_right / new_images
    first = binomtest(right, images).proportion_ci(0.95, "wilson")
    second = binomtest(new_right, new_images).proportion_ci(0.95, "wilson")
    low = r - a - math.hypot(r - first.low, second.high - a)
    high = r - a + math.hypot(first.high - r, a - second.low)
    return r - a, float(low), float(high)


def memberships(groups: Labels, is_new: Members, permutations: int, rng: np.random.Generator) -> Members:
    """Which images are new, (1 + P, n): first as it is, then with the groups drawn again."""
    _, first, of = np.unique(groups, return_index=True, return_inverse=True)
    new_groups = is_new[first]
    drawn = rng.permuted(np.tile(new_groups, (permutations, 1)), axis=1)
    return np.vstack([new_groups, drawn])[:, of]


def permutation_p_value(draws: Numbers) -> float:
    """Share of permutations that come as far as what was observed (the first), itself counted."""
    return float(np.mean(draws >= draws[0] - 1e-12))


def squared_mmd(features: NDArray[np.float32], members: Members) -> Numbers:
    """Unbiased MMD² of each membership, (1 + P,)."""
    x = features.astype(np.float64)
    x = x - x.mean(axis=0)
    square = (x**2).sum(axis=1)
    distances = np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0.0)
    median = float(np.median(distances[~np.eye(len(x), dtype=bool)]))
    kernel = np.exp(-distances / max(median, np.finfo(np.float64).tiny) / 2)
    np.fill_diagonal(kernel, 0.0)
    inside = members.astype(np.float64)
    rows = inside @ kernel
    new = (rows * inside).sum(axis=1)
    across = rows.sum(axis=1) - new
    old = kernel.sum() - new - 2 * across
    m = inside.sum(axis=1)
    k = len(x) - m
    return np.asarray(
        new / np.maximum(m * (m - 1), 1) + old / np.maximum(k * (k - 1), 1) - 2 * across / (m * k), dtype=np.float64
    )


def chi_square(labels: Labels, members: Members) -> Numbers:
    """Pearson's chi-square of classes against old and new, of each membership, (1 + P,)."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    total = one_hot.sum(axis=0)
    new = members @ one_hot
    share = members.mean(axis=1)[:, None]
    wanted = np.maximum(total * share * (1 - share), 1e-300)
    # (new - expected)² / expected, summed over old and new.
    return np.asarray(((new - total * share) ** 2 / wanted)[:, total > 0].sum(axis=1), dtype=np.float64)


def associated(answers: Labels, labels: Labels, rng: np.random.Generator) -> bool:
    """Whether answers and labels have anything to do with each other: chi-square of their table, labels permuted, 5 %.

    Answers that are all wrong, but each class wrong in its own way, do: black and white may be exchanged.
    """
    size = int(max(answers.max(), labels.max())) + 1
    expected = np.outer(np.bincount(answers, minlength=size), np.bincount(labels, minlength=size)) / len(labels)

    def statistic(dealt: Labels) -> float:
        table = np.bincount(answers * size + dealt, minlength=size**2).reshape(size, size)
        return float(((table - expected) ** 2 / np.maximum(expected, 1e-12)).sum())

    found = statistic(labels)
    drawn = [statistic(rng.permutation(labels)) for _ in range(_PERMUTATIONS)]
    return (1 + sum(one >= found - 1e-9 for one in drawn)) / (1 + _PERMUTATIONS) < _LEVEL


def holm(p_values: ArrayLike) -> list[float]:
    """Holm's adjustment: the chance that any of so many true nulls comes as low is at most the adjusted value."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1.0)
    return [float(value) for value in adjusted[np.argsort(order, kind="stable")]]
