"""What the winner's probabilities and decisions can be trusted with, measured and logged: `decisions.json`.

Plain values, which the report reads back. Whoever only reads them loads no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from lightning_modules.decisions.conformal import (
    CalibrationScores,
    categories,
    decided,
    fewest_groups,
    prediction_sets,
    score_limits,
)
from lightning_modules.decisions.costs import Costs
from lightning_modules.decisions.reference_images import ReferenceImages
from lightning_modules.decisions.reliability import Reliability, reliability
from lightning_modules.decisions.temperature import log_probabilities, temperature_interval
from lightning_modules.errors import InputError

if TYPE_CHECKING:
    from search.outcome.out_of_sample import OutOfSample
    from search.study.run import StudyRun

__all__ = [
    "ARTIFACT", "COVERAGES", "RATES", "Counted", "CoveragePoint", "DecisionFacts", "PolicyCost", "Strangers",
    "coverage_point", "decision_facts", "log_decisions", "point_metrics", "read_decisions", "strangers",
]  # fmt: skip

ARTIFACT = "decisions.json"
"""Artifact of the parent run."""

_RESAMPLES = 1000

COVERAGES = (0.8, 0.9, 0.95, 0.98, 0.99)
"""Promises that the report measures; a model can be asked for any other."""


RATES = (0.01, 0.05, 0.1)
"""False-alarm rates that the report measures; a model can be asked for any other."""


@dataclass(frozen=True)
class Counted:
    """A share of images with its exact 95 % interval, as if they were independent; None where there is none.

    Attributes:
        of: images that it is a share of.
    """

    value: float | None
    low: float | None
    high: float | None
    of: int

    @staticmethod
    def share(hits: NDArray[np.bool_]) -> Counted:
        """Of so many images those that are true, (N,)."""
        from lightning_modules.training.scores import exact_interval  # brings torch

        if not len(hits):
            return Counted(None, None, None, 0)
        return Counted(float(hits.mean()), *exact_interval(int(hits.sum()), len(hits)), len(hits))


@dataclass(frozen=True)
class CoveragePoint:
    """What one promise costs and keeps.

    Attributes:
        coverage: promised, in (0, 1).
        together: classes, for which it holds together, not for each, because each has too few calibration images.
        covered: images whose prediction set holds their class.
        by_hand: images that are not decided, since their set does not hold exactly one class.
        wrong: of those decided, the ones decided wrongly.
    """

    coverage: float
    together: tuple[str, ...]
    covered: Counted
    by_hand: Counted
    wrong: Counted


@dataclass(frozen=True)
class PolicyCost:
    """What one way to decide costs on the measured images.

    Attributes:
        policy: cheapest (the lowest expected cost), likeliest (the most probable class) or by hand (every image).
        cost: per hundred images, with its 95 % percentile bootstrap interval over groups of images.
        by_hand: share of images that are looked at by hand.
    """

    policy: str
    cost: float
    low: float
    high: float
    by_hand: float


@dataclass(frozen=True)
class Strangers:
    """Images that are called unlike anything in training.

    Attributes:
        rate: share of known kinds of images that may be, in (0, 1).
    """

    rate: float
    called: Counted

    def metrics(self, name: str) -> dict[str, float]:
        """Flat numbers for MLflow."""
        ends = (("", self.called.value), ("_low", self.called.low), ("_high", self.called.high))
        return {f"{name}{end}/{self.rate:g}": value for end, value in ends if value is not None}


@dataclass(frozen=True)
class DecisionFacts:
    """All of it.

    Attributes:
        images, groups: that the model was calibrated with: validation images, predicted by networks that had not seen
            them.
        problem: why it could not be, or empty; then the temperature is None and there are no points.
        temperature: with its 95 % interval.
        before: reliability of the calibration images at temperature 1; None with a problem.
        after: the same at the temperature, which was fitted to these very images.
        test: of the test images, at the temperature; None without test images.
        test_before: the same at temperature 1.
        measured_on: "test images", or "calibration images" where there are none (then the promise is kept by
            construction, and the share by hand is a little too low).
        points: by coverage, those that can be promised.
        impossible: coverages that cannot be, with so few groups.
        needed: groups that a class needs for a promise of its own, for each of `COVERAGES`.
        costs: of each way to decide, where the search was told what decisions cost; empty otherwise.
        strangers: of the test images, all of known kinds, by rate, those that can be promised.
    """

    images: int
    groups: int
    problem: str
    temperature: tuple[float, float, float] | None
    before: Reliability | None
    after: Reliability | None
    test: Reliability | None
    test_before: Reliability | None
    measured_on: str
    points: tuple[CoveragePoint, ...]
    impossible: tuple[float, ...]
    needed: tuple[int, ...]
    costs: tuple[PolicyCost, ...] = ()
    strangers: tuple[Strangers, ...] = ()

    def to_json(self) -> str:
        """As it is kept in MLflow."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    def metrics(self) -> dict[str, float]:
        """Flat numbers for MLflow; what is not known is left out."""
        found: dict[str, float] = {"calibration_images": self.images, "calibration_groups": self.groups}
        if self.temperature is not None:
            names = ("temperature", "temperature_low", "temperature_high")
            found |= dict(zip(names, self.temperature, strict=True))
        for name in ("before", "after", "test", "test_before"):
            measured: Reliability | None = getattr(self, name)
            if measured is not None:
                called = f"{name if name.startswith('test') else f'calibration_{name}'}_ece"
                found |= {called: measured.ece, f"{called}_chance": measured.chance}
                found |= {f"{called}_low": measured.low, f"{called}_high": measured.high}
        for point in self.points:
            found |= point_metrics(point)
        for one in self.costs:
            name = one.policy.replace(" ", "_")
            found |= {f"decision_cost_{name}": one.cost, f"decision_cost_{name}_low": one.low}
            found |= {f"decision_cost_{name}_high": one.high, f"decision_cost_{name}_by_hand": one.by_hand}
        for strange in self.strangers:
            found |= strange.metrics("unknown_false_alarms")
        return {name: float(value) for name, value in found.items()}


def point_metrics(point: CoveragePoint, prefix: str = "decision") -> dict[str, float]:
    """Flat numbers of one promise for MLflow; what is not known is left out."""
    found = {}
    for name in ("covered", "by_hand", "wrong"):
        one: Counted = getattr(point, name)
        for end, value in (("", one.value), ("_low", one.low), ("_high", one.high)):
            if value is not None:
                found[f"{prefix}_{name}{end}/{point.coverage:g}"] = value
    return found


def decision_facts(
    unseen: OutOfSample,
    tested: OutOfSample | None,
    classes: tuple[str, ...],
    *,
    costs: Costs | None = None,
    found_strange: tuple[Strangers, ...] = (),
    seed: int = 0,
) -> DecisionFacts:
    """Measure calibration and decisions.

    Args:
        unseen: the winning configuration's answers on validation images.
        tested: the winner's on the test images, None without any.
        costs: of decisions, None where nobody has said.
        found_strange: of these (`strangers`).
    """
    groups, needed = len(np.unique(unseen.groups)), tuple(map(fewest_groups, COVERAGES))
    scores, temperature = unseen.scores, unseen.temperature
    nothing = DecisionFacts(
        len(unseen.labels), groups, unseen.problem, None, None, None, None, None, "", (), (), needed,
        strangers=found_strange,
    )  # fmt: skip
    if scores is None or temperature is None:
        return nothing
    measured = unseen if tested is None else tested
    interval = temperature_interval(unseen.logits, unseen.labels, unseen.groups, seed=seed)
    points, impossible = [], []
    for coverage in COVERAGES:
        try:
            points.append(coverage_point(scores, measured, temperature, classes, coverage))
        except InputError:
            impossible.append(coverage)
    return replace(
        nothing,
        temperature=(temperature, *interval),
        before=_reliability(unseen, 1.0, seed),
        after=_reliability(unseen, temperature, seed),
        test=None if tested is None else _reliability(tested, temperature, seed),
        test_before=None if tested is None else _reliability(tested, 1.0, seed),
        measured_on="calibration images" if tested is None else "test images",
        points=tuple(points),
        impossible=tuple(impossible),
        costs=() if costs is None else _policies(costs, measured, temperature, seed),
    )


def _policies(costs: Costs, answers: OutOfSample, temperature: float, seed: int) -> tuple[PolicyCost, ...]:
    probabilities, labels = np.exp(log_probabilities(answers.logits, temperature)), answers.labels
    ways = {
        "cheapest": costs.cheapest(probabilities),
        "likeliest": probabilities.argmax(1),
        "by hand": np.full(len(labels), -1),
    }
    _, group = np.unique(answers.groups, return_inverse=True)
    sizes, rng = np.bincount(group), np.random.default_rng(seed)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=_RESAMPLES)
    found = []
    for policy, chosen in ways.items():
        cost = costs.of(chosen, labels)
        means = (drawn @ np.bincount(group, weights=cost)) / (drawn @ sizes)
        low, high = 100 * np.quantile(means, (0.025, 0.975))
        found.append(PolicyCost(policy, 100 * float(cost.mean()), float(low), float(high), float((chosen < 0).mean())))
    return tuple(found)


def _reliability(answers: OutOfSample, temperature: float, seed: int) -> Reliability:
    probabilities = np.exp(log_probabilities(answers.logits, temperature))
    return reliability(probabilities, answers.labels, answers.groups, seed=seed)


def coverage_point(
    scores: CalibrationScores, answers: OutOfSample, temperature: float, classes: tuple[str, ...], coverage: float
) -> CoveragePoint:
    """What a promise costs and keeps on these images.

    Raises:
        InputError: the calibration has too few groups for it.
    """
    found = categories(scores, len(classes), coverage)
    sets = prediction_sets(log_probabilities(answers.logits, temperature), score_limits(found))
    chosen = decided(sets)
    made = chosen >= 0
    return CoveragePoint(
        coverage=coverage,
        together=tuple(classes[label] for one in found if len(one.classes) > 1 for label in one.classes),
        covered=Counted.share(sets[np.arange(len(sets)), answers.labels]),
        by_hand=Counted.share(~made),
        wrong=Counted.share(chosen[made] != answers.labels[made]),
    )


def strangers(reference: ReferenceImages, features: NDArray[np.float32]) -> tuple[Strangers, ...]:
    """How many images with these features (M, D) are called unlike anything in training, by rate.

    Rates for which there are too few held-out images are left out.
    """
    far, _ = reference.judged(features)
    found = []
    for rate in RATES:
        try:
            found.append(Strangers(rate, Counted.share(far > reference.limit(rate))))
        except InputError:
            continue
    return tuple(found)


def log_decisions(run: StudyRun, facts: DecisionFacts) -> None:
    """Log them to the study's run."""
    run.tracker.log(run.parent, facts.metrics())
    run.tracker.log_text(run.parent, facts.to_json(), ARTIFACT)


def read_decisions(raw: bytes | None) -> DecisionFacts | None:
    """What `log_decisions` wrote; None of a study that is older, or where it was written by another version."""
    if raw is None:
        return None
    try:
        return TypeAdapter(DecisionFacts).validate_json(raw)
    except ValueError:
        return None
