"""What a statistic of a running trial declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from explain.evidence.trial_maps import TrialMaps

__all__ = ["TrialStatistic"]


@dataclass(frozen=True)
class TrialStatistic:
    """A number of one trial at one moment, by block; more always speaks for the trial.

    Attributes:
        function: Block -> value, "" for what is of no block; without the blocks where it is undefined. Its docstring
            fixes formula, source, range, sign, null and cost, before any result was seen.
        weaker: What a trial with a low value does, with {block} for the block's name, such as "its {block} looks
            elsewhere when the picture is mirrored".
    """

    name: str
    function: Callable[[TrialMaps], Mapping[str, float]]
    weaker: str

    def __call__(self, maps: TrialMaps) -> dict[str, float]:
        """See `function`."""
        return dict(self.function(maps))
