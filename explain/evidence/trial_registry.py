"""The statistics of a running trial by name. Nothing is loaded before a statistic is asked for.

A new statistic is a file of this folder with a constant of its name in capitals, and its name here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explain.evidence.trial_statistic import TrialStatistic

__all__ = ["TRIAL_STATISTICS"]

_NAMES = ("mirrored_maps", "mirrored_answers", "maps_against_top", "localised_answers")


class _TrialStatistics(Mapping[str, "TrialStatistic"]):
    def __getitem__(self, name: str) -> TrialStatistic:
        if name not in _NAMES:
            raise KeyError(name)
        statistic: TrialStatistic = getattr(import_module(f"explain.evidence.{name}"), name.upper())
        return statistic

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


TRIAL_STATISTICS: Mapping[str, TrialStatistic] = _TrialStatistics()
"""Statistics by name: S1 to S4, whose sum is the S of `explain.evidence.joint`."""
