"""How every page rounds its numbers: by what a number is, not by where it stands.

A reader compares numbers down a column and from one page to the next, so that a score has three decimals wherever it
is written. Each value is rounded once, from all its digits, when it is written (half to even, as Python does), and
nothing is computed from what was rounded:

- scores have three decimals, as have their intervals: a test of a thousand images cannot tell less apart. The
  difference of two trials has four, because trials are ranked by less than what is shown of each;
- what else lies between 0 and 1 (probability, correlation, share of the variance) has two;
- shares that are read as so many in a hundred are percentages with one decimal; in a sentence of plain words (whole)
  without one, and round levels (level) with the digits they have;
- whatever has a unit or a scale of its own (learning rate, seconds, measure of a map) has three significant digits;
- p-values have three decimals, and below the last of them say that they are below it;
- counts are whole, their thousands set apart; numbers that name something (a trial, a depth) are written as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from search.words import duration

__all__ = ["FORMS", "written"]


def _three(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


FORMS: Mapping[str, Callable[[float], str]] = {
    "": str,
    "count": lambda value: f"{value:,.0f}".replace(",", " "),
    "score": "{:.3f}".format,
    "gain": "{:+.3f}".format,
    "difference": "{:+.4f}".format,
    "share": "{:.2f}".format,
    "effect": "{:+.2f}".format,
    "percent": lambda value: f"{100 * value:.1f} %",
    "points": lambda value: f"{100 * value:.1f}",
    "whole": lambda value: f"{100 * value:.0f}",
    "level": lambda value: f"{100 * value:g} %",
    "change": lambda value: f"{100 * value:+.1f}",
    "p": lambda value: f"{value:.3f}" if value >= 0.001 else "below 0.001",
    "three": _three,
    "duration": duration,
}
"""What a number is -> how it is written; points and change are percentage points, without and with a sign."""


def written(value: float, form: str = "") -> str:
    """A number as the pages write it, in one of `FORMS`; a dash for NaN."""
    return "-" if math.isnan(value) else FORMS[form](value)
