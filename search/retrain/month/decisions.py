"""Whether the champion's probabilities and prediction sets still hold on a new month. Reading what was found loads no
torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_modules.decisions.reliability import Reliability, reliability
from lightning_modules.decisions.temperature import (
    FEWEST_IMAGES,
    fit_temperature,
    log_probabilities,
    temperature_interval,
)
from lightning_modules.errors import InputError
from search.outcome.decisions import COVERAGES, CoveragePoint, Strangers, coverage_point, point_metrics, strangers
from search.retrain.month.stored import Stored

if TYPE_CHECKING:
    from lightning_modules.networks.model_file import TrainedModel

__all__ = ["MonthDecisions", "measure_decisions"]

_RATE = 0.05  # of false alarms


@dataclass(frozen=True)
class MonthDecisions(Stored):
    """What the champion had promised, on images of the month that it was not trained on.

    Attributes:
        unknown: further such images of classes that it does not know, which no set can hold.
        temperature: the champion's.
        refitted: what these images would be given instead, with its 95 % interval; None of too few of them.
        reliability: of its calibrated probabilities.
        points: by coverage, those that it can promise.
        strange: images that are called unlike anything in training, new classes included, where one in twenty of
            known kinds may be; None where it does not know its training images, or too few held-out ones.
    """

    unknown: int
    temperature: float
    refitted: tuple[float, float, float] | None
    reliability: Reliability
    points: tuple[CoveragePoint, ...]
    strange: Strangers | None = None

    @property
    def broken(self) -> tuple[CoveragePoint, ...]:
        """Promises that chance does not explain: the exact 95 % interval of what was kept lies below."""
        return tuple(point for point in self.points if (point.covered.high or 0.0) < point.coverage)

    @property
    def moved(self) -> bool:
        """Whether the month's own temperature is another one: its 95 % interval is to one side of the champion's."""
        return self.refitted is not None and not self.refitted[1] <= self.temperature <= self.refitted[2]

    def lines(self) -> list[str]:
        """What does not hold any more, a sentence each; else that all does."""
        said = [
            f"Its sets of classes should hold the right one for {point.coverage:.1%} of the images; this month they do "
            f"for {point.covered.value:.1%} ({point.covered.low:.1%} to {point.covered.high:.1%})."
            for point in self.broken
        ]
        if self.moved and self.refitted is not None:
            value, low, high = self.refitted
            said.append(
                f"Its probabilities do not hold any more: temperature {self.temperature:.2f}, on this month "
                f"{value:.2f} ({low:.2f} to {high:.2f})."
            )
        if self.unknown:
            said.append(f"Images of classes that it does not know, which no set can hold: {self.unknown}.")
        if self.strange is not None and (self.strange.called.low or 0.0) > self.strange.rate:
            called = self.strange.called
            said.append(
                f"Unlike anything in training: {called.value:.1%} ({called.low:.1%} to {called.high:.1%}); "
                f"of known kinds of images at most {self.strange.rate:.0%} would be."
            )
        return said or [f"Its probabilities and sets of classes hold, as far as {self.reliability.images} images show."]

    def metrics(self) -> dict[str, float]:
        """Flat numbers for MLflow."""
        one = self.reliability
        found = {
            "month_decision_images": one.images, "month_decision_unknown": self.unknown,
            "month_temperature": self.temperature, "month_ece": one.ece, "month_ece_low": one.low,
            "month_ece_high": one.high, "month_ece_chance": one.chance,
        }  # fmt: skip
        if self.refitted is not None:
            names = ("month_temperature_refitted", "month_temperature_low", "month_temperature_high")
            found |= dict(zip(names, self.refitted, strict=True))
        for point in self.points:
            found[f"month_coverage/{point.coverage:g}"] = point.coverage
            found |= point_metrics(point, "month_decision")
        if self.strange is not None:
            found |= self.strange.metrics("month_unknown")
        return {name: float(value) for name, value in found.items()}


def measure_decisions(
    model: TrainedModel,
    probabilities: NDArray[np.float64],
    classes: tuple[str, ...],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    features: NDArray[np.float32] | None = None,
    seed: int = 0,
) -> MonthDecisions | None:
    """Measure them; None where the champion is not calibrated, or there is no image of its classes.

    Args:
        probabilities: of it before calibration, on images that it was not trained on, (N, len(classes)).
        classes: names of the columns: its own and what is new.
        labels: (N,), positions among `classes`.
        groups: (N,), see `CalibrationScores`.
        features: penultimate ones, (N, D); None looks for no strange images.
    """
    from search.outcome.out_of_sample import OutOfSample  # brings torch

    temperature, calibration = model.card.temperature, model.calibration
    if temperature is None or calibration is None:
        return None
    own = np.array([classes.index(name) for name in model.card.classes])
    inside = np.isin(labels, own)
    if not inside.any():
        return None
    logits = np.log(np.maximum(probabilities[inside][:, own], 1e-300))
    true, numbers = np.argsort(own)[np.searchsorted(np.sort(own), labels[inside])], groups[inside]
    answers = OutOfSample(logits, true, numbers)
    points = []
    for coverage in COVERAGES:
        try:
            points.append(coverage_point(calibration, answers, temperature, model.card.classes, coverage))
        except InputError:
            break  # larger ones need more still
    refitted = None
    if len(true) >= FEWEST_IMAGES:
        refitted = (fit_temperature(logits, true), *temperature_interval(logits, true, numbers, seed=seed))
    strange = None
    if features is not None and model.reference is not None:
        strange = next((one for one in strangers(model.reference, features) if one.rate == _RATE), None)
    return MonthDecisions(
        unknown=int((~inside).sum()),
        temperature=temperature,
        refitted=refitted,
        reliability=reliability(np.exp(log_probabilities(logits, temperature)), true, numbers, seed=seed),
        points=tuple(points),
        strange=strange,
    )
