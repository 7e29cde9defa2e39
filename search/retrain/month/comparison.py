"""Champion against challenger on the same images: differences with intervals, an exact test, and the promotion rule.

N images, C classes. Both models answer the same images, so everything here is paired: what counts is the images on
which exactly one of the two is right. Nothing here loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from search.significance import fall_p_value, macro_f1_draws, paired_interval, smallest_detectable

__all__ = ["ClassComparison", "Comparison", "Decision", "ScorePair", "compare", "decide"]

_RESAMPLES = 2000
_COLLAPSE_LEVEL = 0.05

Confusion = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ScorePair:
    """One score of both models.

    Attributes:
        champion: its score, in [0, 1].
        challenger: its score, in [0, 1].
        difference: challenger minus champion, in [-1, 1].
        low: lower end of the difference's 95 % interval.
        high: its upper end.
    """

    champion: float
    challenger: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassComparison:
    """Recall of one class, in images.

    Attributes:
        name: of the class.
        images: of this class; recalls are right / images.
        champion: how many of them the champion has right.
        challenger: how many of them the challenger has right.
    """

    name: str
    images: int
    champion: int
    challenger: int

    @property
    def fall(self) -> float:
        """Champion's recall minus challenger's, in [-1, 1]; NaN without images."""
        return (self.champion - self.challenger) / self.images if self.images else math.nan


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        n: images.
        accuracy: with Tango's score interval for paired proportions (`paired_tests.paired_interval`).
        macro_f1: mean over the classes that occur in labels or in the predictions of one of the two, the same for
            both; with a percentile bootstrap interval over images, resampled in pairs and within each class.
        only_champion: images that the champion alone has right.
        only_challenger: images that the challenger alone has right.
        mcnemar_p: McNemar's test, exact and two-sided: such images are as likely one way as the other. 1 where there
            are none.
        smallest_detectable: smallest true difference of accuracy that McNemar's test finds among so many images with
            80 % power, at the discordance observed (`paired_tests.smallest_detectable`).
        per_class: by class, in the order of the outputs.
        confusion_champion: counts, row = true class, column = predicted class.
        confusion_challenger: likewise.
    """

    n: int
    accuracy: ScorePair
    macro_f1: ScorePair
    only_champion: int
    only_challenger: int
    mcnemar_p: float
    smallest_detectable: float
    per_class: tuple[ClassComparison, ...]
    confusion_champion: Confusion
    confusion_challenger: Confusion

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Comparison:
        """What `to_json` gave, also after a way through JSON."""
        return Comparison(
            **{
                **values,
                "accuracy": ScorePair(**values["accuracy"]),
                "macro_f1": ScorePair(**values["macro_f1"]),
                "per_class": tuple(ClassComparison(**one) for one in values["per_class"]),
                "confusion_champion": _counts(values["confusion_champion"]),
                "confusion_challenger": _counts(values["confusion_challenger"]),
            }
        )


def compare(
    champion: ArrayLike, challenger: ArrayLike, labels: ArrayLike, *, classes: Sequence[str], seed: int = 0
) -> Comparison:
    """Compare two models on the same images.

    Args:
        champion: probabilities, (N, C), finite; a class that it does not know has probability 0.
        challenger: likewise, of the same images in the same order.
        labels: true classes, integers in 0..C-1, (N,).
        classes: the C names.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, no image, labels out of range, or probabilities that are not finite.
    """
    count = len(classes)
    truth = np.asarray(labels)
    if truth.ndim != 1 or not len(truth) or not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels must be at least one class index (N,), got {truth.dtype} {truth.shape}")
    if truth.min() < 0 or truth.max() >= count:
        raise ValueError(f"labels must be in 0..{count - 1}, got {truth.min()}..{truth.max()}")
    answers = []
    for name, given in (("champion", champion), ("challenger", challenger)):
        probabilities = np.asarray(given, dtype=np.float64)
        if probabilities.shape != (len(truth), count):
            raise ValueError(f"{name} must be ({len(truth)}, {count}) probabilities, got {probabilities.shape}")
        if not np.isfinite(probabilities).all():
            raise ValueError(f"{name} must be finite probabilities, got NaN or infinity")
        answers.append(probabilities.argmax(axis=1))
    right = [answer == truth for answer in answers]
    only_champion, only_challenger = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    discordant = only_champion + only_challenger
    low, high = paired_interval(only_challenger, only_champion, len(truth))
    shares = [float(one.mean()) for one in right]
    confusions = [np.bincount(truth * count + one, minlength=count**2).reshape(count, count) for one in answers]
    per_class = tuple(
        ClassComparison(name, int((truth == i).sum()), *(int(one[truth == i].sum()) for one in right))
        for i, name in enumerate(classes)
    )
    return Comparison(
        n=len(truth),
        accuracy=ScorePair(shares[0], shares[1], (only_challenger - only_champion) / len(truth), low, high),
        macro_f1=_macro_f1(truth, answers[0], answers[1], count, seed),
        only_champion=only_champion,
        only_challenger=only_challenger,
        mcnemar_p=float(binomtest(only_champion, discordant).pvalue) if discordant else 1.0,
        smallest_detectable=smallest_detectable(len(truth), discordant),
        per_class=per_class,
        confusion_champion=_counts(confusions[0].tolist()),
        confusion_challenger=_counts(confusions[1].tolist()),
    )


def _macro_f1(
    truth: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], count: int, seed: int
) -> ScorePair:
    (one, other), draws = macro_f1_draws(truth, first, second, count, resamples=_RESAMPLES, seed=seed)
    low, high = (float(q) for q in np.quantile(draws, (0.025, 0.975)))
    return ScorePair(one, other, other - one, low, high)


def _counts(rows: Sequence[Sequence[int]]) -> Confusion:
    return tuple(tuple(row) for row in rows)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger takes the champion's place.

    Attributes:
        promote: whether it does.
        reason: why, in one sentence with the numbers.
        checks: every condition as (words with the numbers, whether it holds); promoted where all do.
    """

    promote: bool
    reason: str
    checks: tuple[tuple[str, bool], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them."""
        return {"promote": self.promote, "reason": self.reason, "checks": [list(check) for check in self.checks]}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Decision:
        """What `to_json` gave, also after a way through JSON."""
        return Decision(values["promote"], values["reason"], tuple((words, held) for words, held in values["checks"]))


def decide(
    newest: Comparison,
    regression: Comparison | None,
    others: Comparison | None = None,
    *,
    margin: float,
    guard: float,
) -> Decision:
    """The promotion rule, usable with a hundred test images. The challenger is promoted where all of this holds:

    1. *better in expectation*: it has more of the newest images right than the champion;
    2. *non-inferior*: the 95 % interval of that difference lies above -margin;
    3. *remembers*: on the regression set its accuracy is not below the champion's by more than the margin, nor on the
       held-out images of other months (observed: an interval as in 2 would ask for proof twice, and refuse half of the
       challengers that are just as good there);
    4. *no class collapses*: for no class has recall fallen by more than `guard` and by more than chance (Fisher's
       exact test, one-sided, 5 %, `paired_tests.fall_p_value`), neither on the newest images, nor on the regression
       set, nor on other months, nor on all together. 2 of 3 images instead of 3 is no collapse; 0 of 3 is one.

    How often it is right: docs/retraining_statistics.md.

    Args:
        newest: on held-out images of the newest month or months.
        regression: on the test images of the first champion; None where there are none, and 3 is not asked of them.
        others: on held-out images of months that are not among the newest; None where there are none.
        margin: in accuracy, in (0, 1).
        guard: in recall, in (0, 1].

    Raises:
        ValueError: margin or guard out of range.
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin must be in (0, 1), got {margin}")
    if not 0 < guard <= 1:
        raise ValueError(f"guard must be in (0, 1], got {guard}")
    accuracy = newest.accuracy
    gained = newest.only_challenger > newest.only_champion
    checks = [
        (f"the challenger has {'more' if gained else 'no more'} of the newest images right", gained),
        (
            f"the interval reaches down to {_points(accuracy.low)}, {_points(-margin)} accepted",
            accuracy.low > -margin,
        ),
    ]
    for known, place in ((regression, "images of the regression set"), (others, "held-out images of other months")):
        if known is not None:
            old = known.accuracy.difference
            checks.append(
                (f"{_points(old)} points on {known.n} {place}, {_points(-margin)} accepted", old >= -margin - 1e-12)
            )
    fallen = _collapsed({"newest": newest, "regression set": regression, "other months": others}, guard)
    words = f"recall collapsed for {', '.join(fallen)}" if fallen else "no class collapsed"
    checks.append((words, not fallen))
    promote = all(held for _, held in checks)
    numbers = (
        f"the challenger has {accuracy.challenger:.1%} of {newest.n} newest images right, the champion "
        f"{accuracy.champion:.1%}, {_points(accuracy.difference)} points "
        f"(95 % interval {_points(accuracy.low)} to {_points(accuracy.high)})"
    )
    said = "; ".join(words for words, held in checks if held is promote)
    return Decision(promote, f"{'promoted' if promote else 'champion kept'}: {numbers}; {said}", tuple(checks))


def _collapsed(found: Mapping[str, Comparison | None], guard: float) -> list[str]:
    """Classes that collapse, each once, with the numbers."""
    known = {place: comparison for place, comparison in found.items() if comparison is not None}
    places = [(place, {one.name: one for one in comparison.per_class}) for place, comparison in known.items()]
    if len(places) > 1:
        together = {}
        for name in dict.fromkeys(name for _, classes in places for name in classes):
            parts = [classes[name] for _, classes in places if name in classes]
            counts = (sum(part.images for part in parts), sum(part.champion for part in parts))
            together[name] = ClassComparison(name, *counts, sum(part.challenger for part in parts))
        places.append(("all together", together))
    fallen: dict[str, str] = {}
    for place, classes in places:
        for name, one in classes.items():
            if name in fallen or not one.images or one.fall <= guard + 1e-12:
                continue
            p = fall_p_value(one.champion, one.challenger, one.images)
            if p <= _COLLAPSE_LEVEL + 1e-12:
                counts_said = f"{one.challenger} of {one.images} right instead of {one.champion}"
                fallen[name] = f"{name} ({place}: {counts_said}, p = {p:.3f})"
    return list(fallen.values())


def _points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # no -0.0
