"""Scores in words: their names as people write them, and whether an interval says anything."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_modules.errors import printable

__all__ = ["class_counts", "duration", "epoch_count", "interval_known", "spoken", "times"]


def spoken(metric: str) -> str:
    """Name of a score for readers: macro_f1 is macro F1."""
    return metric.replace("_", " ").replace("f1", "F1")


def interval_known(name: str, low: float, high: float) -> bool:
    """Whether an interval of a test score says anything.

    A bootstrap of nothing but hits has no width and is no interval; weights that sum to 1 - 1e-16 do not make it one.
    The interval of accuracy is exact.
    """
    return name == "accuracy" or not math.isclose(low, high, abs_tol=1e-9)


def epoch_count(count: int) -> str:
    """1 epoch, 2 epochs."""
    return f"{count} epoch{'' if count == 1 else 's'}"


def times(count: int) -> str:
    """How often: once, or 2 times."""
    return "once" if count == 1 else f"{count} times"


def duration(seconds: float) -> str:
    """Seconds as 42 s, 3 min 20 s or 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def class_counts(counts: Mapping[str, int], most: int = 12) -> str:
    """Classes with their numbers of images, `crack 120, pore 80`; of more than `most` the largest and the rarest."""
    shown = [f"{printable(name)} {count}" for name, count in counts.items()]
    if len(shown) <= most:
        return ", ".join(shown)
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    first, last = ([f"{printable(name)} {count}" for name, count in part] for part in (ranked[: most - 3], ranked[-3:]))
    return f"{', '.join(first)} and {len(ranked) - most} more; the rarest: {', '.join(last)}"
