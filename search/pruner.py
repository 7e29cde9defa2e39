"""When a trial is stopped early: by its validation score beside those of the other trials at the same epoch."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from search.settings import SearchSettings

__all__ = ["HalvingRule", "build_pruner", "rungs"]

_EARLY = 2  # epochs


def rungs(epochs: int) -> tuple[int, ...]:
    """Epochs at which trials are compared: 1, 2, 4, ... below `epochs`; dense early, where most can be told apart."""
    return tuple(2**i for i in range(max(epochs - 1, 0).bit_length()))


class HalvingRule(BasePruner):
    """Successive halving of one bracket, as trials come in (Li et al. 2020, arXiv 1810.05934, without promotion).

    At each rung, a trial goes on if its score is among the best 1/factor of all trials that reached the rung so far,
    itself included; at least the best one goes on. Between rungs nobody is stopped.

    At the early rungs like is compared with like: only with trials whose freeze depth is at most `reach` blocks away.
    Deep freezes have all they will ever have after an epoch, shallow ones begin lower and climb past them, so
    that a comparison of all with all would decide for freezing before thawing had begun to pay.

    Args:
        at: the rungs, epochs from 1, ascending.
        factor: one in this many goes on, > 1.
        early: the last epoch at which like is compared with like; 0 compares all with all at every rung.
        reach: blocks.
    """

    def __init__(self, at: Sequence[int], factor: float, *, early: int = 0, reach: int = 1) -> None:
        if factor <= 1:
            raise ValueError(f"factor must be greater than 1, got {factor}")
        self._at, self._factor = tuple(at), factor
        self._early, self._reach = early, reach

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop `trial` after its last reported epoch."""
        step = trial.last_step
        if step not in self._at:
            return False
        own = trial.intermediate_values[step]
        others = [
            t.intermediate_values[step]
            for t in study.get_trials(deepcopy=False)
            if t.number != trial.number
            and t.state is not TrialState.FAIL
            and step in t.intermediate_values
            and (step > self._early or self._alike(t, trial))
        ]
        survivors = max(1, int((len(others) + 1) / self._factor))
        return sum(value > own for value in others) >= survivors

    def _alike(self, one: FrozenTrial, other: FrozenTrial) -> bool:
        depths: list[int] = [t.params["freeze_depth"] for t in (one, other)]
        return abs(depths[0] - depths[1]) <= self._reach


def build_pruner(settings: SearchSettings, epochs: int) -> BasePruner:
    """The rule that stops a poor trial early; steps are epochs finished, from 1."""
    if settings.pruner == "none":
        return NopPruner()
    if settings.pruner == "halving":
        return HalvingRule(rungs(epochs), settings.halving_factor, early=_EARLY)
    return MedianPruner(
        n_startup_trials=settings.pruner_startup_trials, n_warmup_steps=settings.pruner_warmup_epochs, interval_steps=1
    )
