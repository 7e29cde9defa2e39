"""Prediction sets that hold the true class as often as was promised, and the decisions that follow from them.

N calibration images, which the network was not trained on; K groups of them; C classes; M images to decide on.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError

__all__ = [
    "BY_HAND",
    "LARGEST_COVERAGE",
    "SLACK",
    "CalibrationScores",
    "Category",
    "categories",
    "decided",
    "fewest_groups",
    "prediction_sets",
    "read_scores",
    "score_limits",
    "scores_json",
]

BY_HAND: Final = "by hand"
"""The decision where the prediction set does not hold exactly one class."""

LARGEST_COVERAGE: Final = 0.999
"""Largest promise that can be asked for: it takes 999 images of a class."""

SLACK: Final = 1e-3
"""Added to a limit, on which one of the calibration images lies exactly. Where the network that answered it is the one
that is served (`search.refit=false`), the last digit that a processor or an exported file computes would put that image
in or out. A larger limit keeps the promise all the more."""

_FORMAT: Final = 1
_EPSILON: Final = 1e-9
_MOST_IMAGES: Final = 10_000_000


@dataclass(frozen=True, eq=False)
class CalibrationScores:
    """How strange a network found the true class of images that it was not trained on.

    Attributes:
        scores: (N,) float64, >= 0: -ln of the calibrated probability of the true class. Sets by it are those by
            1 - probability (Sadinle, Lei and Wasserman 2019, doi 10.1080/01621459.2017.1395341), without its ties at 0.
        labels: (N,) int64, the true classes.
        groups: (N,) int64: images of one group (plate, coil, copies of a picture) are not independent of one another.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    @staticmethod
    def of(
        log_probabilities: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]
    ) -> CalibrationScores:
        """From natural logarithms of calibrated probabilities (N, C)."""
        own = log_probabilities[np.arange(len(labels)), labels]
        return CalibrationScores(np.maximum(-own, 0.0), labels, groups)


@dataclass(frozen=True)
class Category:
    """Classes that share one limit.

    Attributes:
        classes: their positions; more than one where each alone has too few groups.
        images: calibration images of them.
        groups: groups that those are of.
        limit: largest score that a class of the set may have.
    """

    classes: tuple[int, ...]
    images: int
    groups: int
    limit: float


def fewest_groups(coverage: float) -> int:
    """Smallest K with ceil((K + 1) coverage) <= K: 9 for 0.9, 19 for 0.95, 99 for 0.99.

    With fewer no score is large enough to promise that much, and the set would have to hold every class.
    """
    return max(1, math.ceil(coverage / (1 - coverage) - _EPSILON))


def categories(calibration: CalibrationScores, classes: int, coverage: float) -> tuple[Category, ...]:
    """The limits of all classes at a coverage: of each class its own where it has enough groups.

    Of a new image of a category, of a group that is new too, the set holds the true class with probability >= coverage,
    if the groups are exchangeable (class-conditional conformal prediction: Vovk 2012, arXiv 1209.2673). A limit is the
    `coverage` quantile of the category's scores, each weighing 1 / ((K + 1) images of its group), and of infinity,
    which weighs 1 / (K + 1): hierarchical conformal prediction (Lee, Barber and Willett 2023, arXiv 2306.06342). Where
    every image is a group of its own, that is the ceil((N + 1) coverage)-th smallest score.

    Classes with fewer than `fewest_groups` share one limit. Where even together they have too few, the class with the
    fewest groups among the others joins them, and so on: the promise then holds for them together, not for each.

    Args:
        classes: C.
        coverage: in (0, 1).

    Returns:
        By their first class; every class is in one of them.

    Raises:
        InputError: all classes together have too few groups; says how many are needed and what could be promised.
    """
    needed = fewest_groups(coverage)
    found = [len(np.unique(calibration.groups[calibration.labels == label])) for label in range(classes)]
    order = sorted(range(classes), key=lambda label: (found[label], label))
    merged = [label for label in order if found[label] < needed]
    alone = order[len(merged) :]
    while merged and _groups(calibration, merged) < needed:
        if not alone:
            count = _groups(calibration, merged)
            most = f"; {count} allow at most {math.floor(1000 * count / (count + 1)) / 1000:g}" if count else ""
            raise InputError(
                f"coverage={coverage:g} needs calibration images of at least {needed} groups (an image without a group "
                f"is one), the model has {count}{most}"
            )
        merged.append(alone.pop(0))
    parts = [*([merged] if merged else []), *([label] for label in alone)]
    return tuple(_category(calibration, part, coverage) for part in sorted(map(sorted, parts)))


def _groups(calibration: CalibrationScores, classes: list[int]) -> int:
    return len(np.unique(calibration.groups[np.isin(calibration.labels, classes)]))


def _category(calibration: CalibrationScores, classes: list[int], coverage: float) -> Category:
    inside = np.isin(calibration.labels, classes)
    scores = calibration.scores[inside]
    _, place, sizes = np.unique(calibration.groups[inside], return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / ((len(sizes) + 1) * sizes[place[order]]))
    limit = scores[order][np.searchsorted(reached, coverage - _EPSILON)]
    return Category(tuple(classes), len(scores), len(sizes), float(limit))


def score_limits(found: tuple[Category, ...]) -> NDArray[np.float64]:
    """(C,) what a class of the set may score at most: the limit of its category and `SLACK`."""
    limits = np.empty(sum(len(one.classes) for one in found))
    for one in found:
        limits[list(one.classes)] = one.limit + SLACK
    return limits


def prediction_sets(log_probabilities: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(M, C) whether a class is in the set, from logarithms of calibrated probabilities (M, C); a set may be empty."""
    return -log_probabilities <= limits + _EPSILON


def decided(sets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(M,) the only class of each set (M, C), or -1: by hand."""
    return np.where(sets.sum(1) == 1, sets.argmax(1), -1)


def scores_json(calibration: CalibrationScores) -> str:
    """As text: the numbers read back as they were."""
    plain = {
        "format": _FORMAT,
        "labels": calibration.labels.tolist(),
        "groups": calibration.groups.tolist(),
        "scores": calibration.scores.tolist(),
    }
    return json.dumps(plain, allow_nan=False)


def read_scores(text: str, classes: int) -> CalibrationScores:
    """What `scores_json` wrote, of a model of so many classes.

    Raises:
        InputError: with the reason alone: no JSON, another format, or values no model of ours has.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("no JSON") from None
    if not isinstance(raw, dict) or set(raw) != {"format", "labels", "groups", "scores"}:
        raise InputError("no calibration of a model")
    if raw["format"] != _FORMAT:
        raise InputError(f"format {str(raw['format'])[:40]}, accepted is {_FORMAT}: made by a later version")
    labels = _numbers(raw["labels"], int, classes - 1)
    groups = _numbers(raw["groups"], int, _MOST_IMAGES)
    scores = _numbers(raw["scores"], float, math.inf)
    if labels is None or groups is None or scores is None or not 0 < len(labels) == len(groups) == len(scores):
        raise InputError(f"labels in 0..{classes - 1}, groups >= 0 and finite scores >= 0, as many of each, expected")
    return CalibrationScores(scores.astype(np.float64), labels.astype(np.int64), groups.astype(np.int64))


def _numbers(values: Any, kind: type, high: float) -> NDArray[Any] | None:
    """The values as an array; None where they are no list of such numbers in [0, high], finite."""
    accepted = (int,) if kind is int else (int, float)
    if not isinstance(values, list) or not all(type(value) in accepted for value in values):
        return None
    if not all(0 <= value <= high and value < math.inf for value in values):
        return None
    return np.array(values, dtype=kind)
