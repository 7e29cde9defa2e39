"""The same charts as drawings, for paper and where no script runs; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_modules.decisions.reliability import Reliability
from search.outcome.decisions import CoveragePoint
from search.study.record import Trial

__all__ = ["Chart", "coverage_curve", "curves", "reliability_diagram", "slices"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 10.0, 34.0


@dataclass
class Chart:
    """A plot area with ticks, and what is drawn in it; places are in pixels.

    Attributes:
        height: likewise.
        radius: of its dots.
        across: values at the left and the right end.
        up: lowest and highest value.
        lines: y of horizontal ones.
        labels: x, y, anchor as SVG has it, words.
        curves: kind (won, full or stopped), points.
        dots: kind, point.
    """

    width: int
    height: int
    radius: int
    across: tuple[float, float]
    up: tuple[float, float]
    lines: list[float] = field(default_factory=list)
    labels: list[tuple[float, float, str, str]] = field(default_factory=list)
    curves: list[tuple[str, list[tuple[float, float]]]] = field(default_factory=list)
    dots: list[tuple[str, tuple[float, float]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        pad = 0.06 * (self.up[1] - self.up[0]) or 0.05
        self.up = (self.up[0] - pad, self.up[1] + pad)
        self.left, self.right = _LEFT, self.width - _RIGHT

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where two values stand."""
        across = (x - self.across[0]) / (self.across[1] - self.across[0] or 1)
        up = (y - self.up[0]) / (self.up[1] - self.up[0] or 1)
        return (
            self.left + across * (self.right - self.left),
            self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM),
        )

    def grid(self, ticks: Sequence[tuple[float, str]], title: str) -> None:
        """Horizontal lines with their values, and the ticks of the x axis."""
        low, high = self.up
        step = _step(high - low)
        for k in range(math.ceil(low / step), math.floor(high / step) + 1):
            y = self.place(0, k * step)[1]
            self.lines.append(y)
            self.labels.append((_LEFT - 6, y + 4, "end", f"{k * step:.4g}"))
        below = self.height - _BOTTOM + 15
        self.labels += [(self.place(value, 0)[0], below, "middle", words) for value, words in ticks]
        self.labels.append(((self.left + self.right) / 2, self.height - 4, "middle", title))


def curves(trials: Sequence[Trial], winner: int | None) -> Chart:
    """Validation score of every trial by epoch; those that were stopped early are faded.

    Args:
        trials: at least one, each with a curve.
        winner: slot of the winning trial, or None.
    """
    values = [value for trial in trials for value in trial.curve]
    longest = max(len(trial.curve) for trial in trials)
    chart = Chart(760, 320, 3, (1, max(longest, 2)), (min(values), max(values)))
    every = max(1, -(-longest // 12))
    chart.grid([(epoch, str(epoch)) for epoch in range(1, longest + 1, every)], "epoch")
    for trial in sorted(trials, key=lambda t: (t.slot == winner, t.outcome == "complete")):
        points = [chart.place(epoch, value) for epoch, value in enumerate(trial.curve, 1)]
        if len(points) == 1:
            chart.dots.append((_kind(trial, winner), points[0]))
        else:
            chart.curves.append((_kind(trial, winner), points))
    return chart


def slices(trials: Sequence[Trial], parameter: str, winner: int | None) -> Chart:
    """Score of every trial over one parameter.

    Args:
        trials: at least one.
        parameter: an attribute of `Trial`.
        winner: slot of the winning trial, or None.
    """
    given = [getattr(trial, parameter) for trial in trials]
    if parameter in ("optimizer", "network"):
        names = sorted(set(given))
        places = [float(names.index(one)) for one in given]
        ticks = [(float(place), name) for place, name in enumerate(names)]
    elif parameter == "lr_factor":
        places = [math.log10(one) for one in given]
        exponents = range(math.floor(min(places)), math.ceil(max(places)) + 1)
        ticks = [(float(exponent), f"{10.0**exponent:g}") for exponent in exponents]
    else:
        places = [float(one) for one in given]
        ticks = [(float(k), str(k)) for k in range(int(min(places)), int(max(places)) + 1)]
    ends = [place for place, _ in ticks] + places
    scores = [trial.value for trial in trials]
    chart = Chart(380, 240, 4, (min(ends) - 0.4, max(ends) + 0.4), (min(scores), max(scores)))
    chart.grid(ticks, parameter.replace("_", " "))
    chart.dots += [
        (_kind(trial, winner), chart.place(place, trial.value)) for place, trial in zip(places, trials, strict=True)
    ]
    return chart


def reliability_diagram(found: Reliability) -> Chart:
    """Accuracy over confidence, a dot and an interval a bin; on the diagonal the two are equal."""
    chart = Chart(380, 300, 4, (0.0, 1.0), (0.0, 1.0))
    chart.grid([(k / 5, f"{k / 5:g}") for k in range(6)], "confidence")
    chart.curves.append(("stopped", [chart.place(0, 0), chart.place(1, 1)]))
    for one in found.bins:
        ends = (one.accuracy_low, one.accuracy_high)
        chart.curves.append(("full", [chart.place(one.confidence, end) for end in ends]))
        chart.dots.append(("won", chart.place(one.confidence, one.accuracy)))
    return chart


def coverage_curve(points: Sequence[CoveragePoint]) -> Chart:
    """Share decided wrongly over the share that is left to hands, by coverage; left out where nothing is decided."""
    known = [(p.by_hand.value, p.wrong.value) for p in points if p.by_hand.value is not None]
    placed = [(by_hand, wrong) for by_hand, wrong in known if wrong is not None]
    highest = max((wrong for _, wrong in placed), default=0.0)
    chart = Chart(380, 300, 4, (0.0, 1.0), (0.0, max(highest, 0.01)))
    chart.grid([(k / 5, f"{20 * k}") for k in range(6)], "by hand, %")
    if len(placed) > 1:
        chart.curves.append(("full", [chart.place(*one) for one in placed]))
    chart.dots += [("won", chart.place(*one)) for one in placed]
    return chart


def _kind(trial: Trial, winner: int | None) -> str:
    return "won" if trial.slot == winner else "full" if trial.outcome == "complete" else "stopped"


def _step(span: float) -> float:
    """A round distance between lines, four to eight of them over `span`."""
    rough = max(span, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
