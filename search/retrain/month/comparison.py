"""Step 5: champion against challenger on images that neither was trained on, and the promotion rule.

N images, C classes. Both models answer the same images, so everything here is paired: what counts is the images on
which exactly one of the two is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.scores import exact_interval
from search.retrain.month.context import MonthContext
from search.retrain.month.images import probabilities
from search.retrain.month.probe import beyond_chance, month_probe
from search.retrain.month.record import ClassComparison, Comparison, Confusion, Decision, Drift, ScorePair
from search.settings.schema import Settings
from search.significance import associated, fall_p_value, macro_f1_draws, paired_interval, smallest_detectable

__all__ = ["compare", "compare_models", "decide"]

_RESAMPLES = 2000
_COLLAPSE_LEVEL = 0.05
_FEWEST = 12  # held-out images, with fewer of which bad luck looks like labels without meaning
_NOISE = (
    "this month's labels fit neither model better than labels dealt at random; it is not trained on by later months "
    "either: see how it was labelled"
)


def compare_models(context: MonthContext) -> dict[str, Any]:
    """Both models on the same held-out images: of the newest months, of the regression set, and of other months.

    A month whose labels have nothing to do with what champion or challenger see in its images, as far as its held-out
    images can tell, is not trained on by later months: its labels are noise, or its images are not of this task.

    Returns:
        `newest`, `regression`, `others` (comparisons as plain values, or None), `decision`, `outcome`, `reason`,
        `usable`, `cautions`, and `numbers` for the ledger.
    """
    plan, settings = context.plan, context.settings
    searched = context.results["search"]
    sets = {"newest": plan.newest, "regression": plan.regression, "others": plan.others}
    old = {name: probabilities(context.champion_net, context.images, rows) for name, rows in sets.items() if len(rows)}
    labels = {name: context.images.index.labels[rows] for name, rows in sets.items()}
    winner = searched.get("winner")
    numbers: dict[str, Any] = {"newest_images": len(plan.newest), "newest_months": list(plan.newest_months)}
    numbers |= {"regression_images": len(plan.regression), "others_images": len(plan.others)}
    cautions = [gap] if (gap := context.regression_gap) else []
    for name, answers in old.items():
        numbers |= _accuracy(_called(name, "before"), answers, labels[name])
    if winner is None:
        outcome, promoted, usable = "not needed", False, True
        decision = Decision(False, f"champion kept: {searched['skipped']}{_on_newest(numbers)}")
        comparisons: dict[str, Comparison | None] = dict.fromkeys(sets)
        new = old
    else:
        net = context.session.network(winner["version"])
        new = {name: probabilities(net, context.images, sets[name]) for name in old}
        comparisons = {
            name: compare(old[name], new[name], labels[name], classes=context.classes, seed=settings.seed)
            if name in old
            else None
            for name in sets
        }
        usable = _labels_mean_something(context, net)
        decision = _decision(comparisons, settings)
        if not usable:
            cautions.append(_NOISE)
            decision = Decision(False, f"champion kept: {_NOISE}", (*decision.checks, (_NOISE, False)))
        promoted = decision.promote
        outcome = "promoted" if promoted else "kept"
    for name, answers in (new if promoted else old).items():
        numbers |= _accuracy(_called(name, "after"), answers, labels[name])
    if winner is not None and "newest" in new:
        numbers |= _accuracy("challenger_accuracy", new["newest"], labels["newest"])
    return {
        **{name: one and one.to_json() for name, one in comparisons.items()},
        "decision": decision.to_json(), "outcome": outcome, "reason": decision.reason, "usable": usable,
        "cautions": cautions, "numbers": numbers,
    }  # fmt: skip


def _labels_mean_something(context: MonthContext, challenger: BlockNet) -> bool:
    """Whether the month's own labels fit what either model answers better than labels dealt at random.

    The champion is asked about all images of the month that it was not trained on, the challenger about the held-out
    ones. Where both fail and the images are not what they were, they may fail for that: then linear classifiers on the
    champion's blocks are asked, the best of them against the best under labels dealt at random. Of fewer than twelve
    held-out images nothing is known, and they are believed.
    """
    own, labels = context.plan.own, context.images.index.labels
    if len(own) < _FEWEST:
        return True
    rng = np.random.default_rng(context.settings.seed)
    unseen = context.plan.unseen
    answers = probabilities(context.champion_net, context.images, unseen).argmax(1)
    if associated(answers, labels[unseen], rng):
        return True
    if associated(probabilities(challenger, context.images, own).argmax(1), labels[own], rng):
        return True
    return _learnable(context, rng)


def _learnable(context: MonthContext, rng: np.random.Generator) -> bool:
    """Whether the month's images moved and their labels can be read from some block of the champion (`month_probe`)."""
    look = context.results["look"]
    if not look["drift"]:
        return False
    drift = Drift.from_json(look["drift"])
    if not (drift["features"].seen or any(block.seen for block in drift.blocks)):
        return False
    old, new = context.old_baseline(), context.month_baseline
    seed = context.settings.seed
    answers = [month_probe(old, new, block, seed=seed) for block in range(len(old.blocks))]
    known = [one for one in answers if one is not None]
    return bool(known) and beyond_chance(known, new.labels, rng)


def _decision(found: dict[str, Comparison | None], settings: Settings) -> Decision:
    newest, retrain = found["newest"], settings.retrain
    if newest is None:
        return Decision(False, "champion kept: no image of the newest months is held out, so nothing can be compared")
    return decide(newest, found["regression"], found["others"], margin=retrain.margin, guard=retrain.guard)


def _called(name: str, when: str) -> str:
    return f"accuracy_{when}" if name == "newest" else f"{name}_{when}"


def _accuracy(name: str, answers: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Share of right answers with its exact 95 % interval."""
    right = int((answers.argmax(1) == labels).sum())
    low, high = exact_interval(right, len(labels))
    return {name: right / len(labels), f"{name}_low": low, f"{name}_high": high}


def _on_newest(numbers: dict[str, Any]) -> str:
    if "accuracy_before" not in numbers:
        return ""
    return f"; accuracy {numbers['accuracy_before']:.1%} on {numbers['newest_images']} held-out images"


def compare(
    champion: ArrayLike, challenger: ArrayLike, labels: ArrayLike, *, classes: Sequence[str], seed: int = 0
) -> Comparison:
    """Compare two models on the same images.

    Args:
        champion: probabilities, (N, C), finite; a class that it does not know has probability 0.
        challenger: likewise, of the same images in the same order.
        labels: true classes, integers in 0..C-1, (N,).

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
        shares = np.asarray(given, dtype=np.float64)
        if shares.shape != (len(truth), count):
            raise ValueError(f"{name} must be ({len(truth)}, {count}) probabilities, got {shares.shape}")
        if not np.isfinite(shares).all():
            raise ValueError(f"{name} must be finite probabilities, got NaN or infinity")
        answers.append(shares.argmax(axis=1))
    right = [answer == truth for answer in answers]
    only_champion, only_challenger = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    discordant = only_champion + only_challenger
    low, high = paired_interval(only_challenger, only_champion, len(truth))
    accuracy = [float(one.mean()) for one in right]
    confusions = [np.bincount(truth * count + one, minlength=count**2).reshape(count, count) for one in answers]
    per_class = tuple(
        ClassComparison(name, int((truth == i).sum()), *(int(one[truth == i].sum()) for one in right))
        for i, name in enumerate(classes)
    )
    return Comparison(
        n=len(truth),
        accuracy=ScorePair(accuracy[0], accuracy[1], (only_challenger - only_champion) / len(truth), low, high),
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
       exact test, one-sided, 5 %, `significance.fall_p_value`), neither on the newest images, nor on the regression
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
    checks = [_better(newest), _not_inferior(newest, margin)]
    for known, place in ((regression, "images of the regression set"), (others, "held-out images of other months")):
        if known is not None:
            old = known.accuracy.difference
            words = f"on {known.n} {place} it is {_apart(old)}{_allowed(old, margin)}"
            checks.append((words, old >= -margin - 1e-12))
    fallen = _collapsed({"newest": newest, "regression set": regression, "other months": others}, guard)
    words = f"it fails a class: {', '.join(fallen)}" if fallen else "it fails no class"
    checks.append((words, not fallen))
    promote = all(held for _, held in checks)
    numbers = (
        f"the challenger has {_right(newest.accuracy.challenger, newest.n)} new images right, the champion "
        f"{round(newest.accuracy.champion * newest.n)}"
    )
    said = "; ".join(words for words, held in checks if held is promote)
    return Decision(promote, f"{'promoted' if promote else 'champion kept'}: {numbers}; {said}", tuple(checks))


def _better(newest: Comparison) -> tuple[str, bool]:
    gained = newest.only_challenger > newest.only_champion
    if gained:
        return f"it has {newest.only_challenger - newest.only_champion} more of the new images right", True
    fewer = newest.only_champion - newest.only_challenger
    return ("it has as many new images right" if not fewer else f"it has {fewer} fewer of the new images right"), False


def _not_inferior(newest: Comparison, margin: float) -> tuple[str, bool]:
    """Whether the interval of the difference excludes a loss of the margin."""
    low = newest.accuracy.low
    if low >= 0:
        return f"with {newest.n} images it is shown to be no worse", True
    if low > -margin:
        words = f"with {newest.n} images it can be at most {_points(-low, margin)} points worse{_allowed(low, margin)}"
        return words, True
    points = _points(-low, margin)
    return f"with {newest.n} images we cannot exclude that it is {points} points worse{_allowed(low, margin)}", False


def _apart(difference: float) -> str:
    """A difference in accuracy in words, without its sign."""
    if round(100 * difference, 1) == 0:
        return "as good"
    return f"{_points(abs(difference))} points {'better' if difference > 0 else 'worse'}"


def _allowed(difference: float, margin: float) -> str:
    return f"; {_points(margin)} are allowed" if round(100 * difference, 1) < 0 else ""


def _right(share: float, images: int) -> str:
    return f"{round(share * images)} of {images}"


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


def _points(share: float, beside: float = 0.0) -> str:
    """Percentage points: from ten on whole, unless they would be those they are compared with; else with a decimal."""
    value, other = 100 * share, 100 * beside
    whole = value >= 10 and round(value) != round(other)
    return f"{round(value, 0 if whole else 1):g}"
