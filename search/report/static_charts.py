"""The same charts as SVG, for paper and where no script runs; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.pages.html import text
from search.study.record import Trial

__all__ = ["curves_svg", "slice_svg"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 10.0, 34.0


class _Axes:
    """A plot area with ticks."""

    def __init__(self, width: int, height: int, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.width, self.height = width, height
        pad = 0.06 * (y[1] - y[0]) or 0.05
        self._x, self._y = x, (y[0] - pad, y[1] + pad)
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        share = (value - self._x[0]) / (self._x[1] - self._x[0] or 1)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._y[0]) / (self._y[1] - self._y[0] or 1)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)

    def grid(self, labels: Sequence[tuple[float, str]], title: str) -> None:
        """Horizontal lines with their values, and the ticks of the x axis."""
        low, high = self._y
        step = _step(high - low)
        for k in range(math.ceil(low / step), math.floor(high / step) + 1):
            y = self.y(k * step)
            self.parts.append(f'<line class="grid" x1="{_LEFT}" x2="{self.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{k * step:.4g}</text>')
        for value, label in labels:
            x = self.x(value)
            self.parts.append(
                f'<text x="{x:.1f}" y="{self.height - _BOTTOM + 15}" text-anchor="middle">{text(label)}</text>'
            )
        middle = (_LEFT + self.width - _RIGHT) / 2
        self.parts.append(f'<text x="{middle:.0f}" y="{self.height - 4}" text-anchor="middle">{text(title)}</text>')

    def svg(self, words: str) -> str:
        """The drawing; `words` say what it shows to those who do not see it."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{text(words)}">'
            f"{''.join(self.parts)}</svg>"
        )


def curves_svg(trials: Sequence[Trial], winner: int | None, words: str) -> str:
    """Validation score of every trial by epoch; those that were stopped early are faded.

    Args:
        trials: at least one, each with a curve.
        winner: slot of the winning trial, or None.
        words: what it shows.
    """
    values = [v for t in trials for v in t.curve]
    longest = max(len(t.curve) for t in trials)
    axes = _Axes(760, 320, (1, max(longest, 2)), (min(values), max(values)))
    every = max(1, -(-longest // 12))
    axes.grid([(e, str(e)) for e in range(1, longest + 1, every)], "epoch")
    for trial in sorted(trials, key=lambda t: (t.slot == winner, t.outcome == "complete")):
        kind = "won" if trial.slot == winner else "full" if trial.outcome == "complete" else "stopped"
        places = [f"{axes.x(e):.1f},{axes.y(v):.1f}" for e, v in enumerate(trial.curve, 1)]
        if len(places) == 1:
            x, y = places[0].split(",")
            axes.parts.append(f'<circle class="dot {kind}" cx="{x}" cy="{y}" r="3"/>')
        elif places:
            axes.parts.append(f'<polyline class="{kind}" points="{" ".join(places)}"/>')
    return axes.svg(words)


def slice_svg(trials: Sequence[Trial], parameter: str, winner: int | None, words: str) -> str:
    """Score of every trial over one parameter.

    Args:
        trials: at least one.
        parameter: an attribute of `Trial`.
        winner: slot of the winning trial, or None.
        words: what it shows.
    """
    given = [getattr(t, parameter) for t in trials]
    if parameter == "optimizer":
        names = sorted(set(given))
        places = [float(names.index(g)) for g in given]
        labels = [(float(n), name) for n, name in enumerate(names)]
    elif parameter == "lr_factor":
        places = [math.log10(g) for g in given]
        exponents = range(math.floor(min(places)), math.ceil(max(places)) + 1)
        labels = [(float(e), f"{10.0**e:g}") for e in exponents]
    else:
        places = [float(g) for g in given]
        labels = [(float(k), str(k)) for k in range(int(min(places)), int(max(places)) + 1)]
    ends = [place for place, _ in labels] + places
    axes = _Axes(
        380, 240, (min(ends) - 0.4, max(ends) + 0.4), (min(t.value for t in trials), max(t.value for t in trials))
    )
    axes.grid(labels, parameter.replace("_", " "))
    for place, trial in zip(places, trials, strict=True):
        kind = "won" if trial.slot == winner else "full" if trial.outcome == "complete" else "stopped"
        axes.parts.append(f'<circle class="dot {kind}" cx="{axes.x(place):.1f}" cy="{axes.y(trial.value):.1f}" r="4"/>')
    return axes.svg(words)


def _step(span: float) -> float:
    """A round distance between lines, four to eight of them over `span`."""
    rough = max(span, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
