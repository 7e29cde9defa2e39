"""When a trial is stopped early: by its validation score beside those of the other trials at the same epoch."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from search.settings import SearchSettings

__all__ = ["HalvingRule", "build_pruner", "rungs"]


def rungs(epochs: int) -> tuple[int, ...]:
    """Epochs at which trials are compared: 1, 2, 4, ... below `epochs`; dense early, where most can be told apart."""
    return tuple(2**i for i in range(max(epochs - 1, 0).bit_length()))


class HalvingRule(BasePruner):
    """Successive halving of one bracket, as trials come in (Li et al. 2020, arXiv 1810.05934, without promotion).

    At each rung, a trial goes on if its score is among the best 1/factor of all trials that reached the rung so far,
    itself included; at least the best one goes on. Between rungs nobody is stopped.

    Args:
        at: the rungs, epochs from 1, ascending.
        factor: one in this many goes on, > 1.
        least: trials that must have reached a rung before anyone is stopped there.
    """

    def __init__(self, at: Sequence[int], factor: float, least: int = 1) -> None:
        if factor <= 1:
            raise ValueError(f"factor must be greater than 1, got {factor}")
        self._at, self._factor, self._least = tuple(at), factor, least

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop `trial` after its last reported epoch."""
        step = trial.last_step
        if step not in self._at:
            return False
        own = trial.intermediate_values[step]
        others = [
            t.intermediate_values[step]
            for t in study.get_trials(deepcopy=False)
            if t.number != trial.number and t.state is not TrialState.FAIL and step in t.intermediate_values
        ]
        if len(others) + 1 < self._least:
            return False
        survivors = max(1, int((len(others) + 1) / self._factor))
        return sum(value > own for value in others) >= survivors


def build_pruner(settings: SearchSettings, epochs: int) -> BasePruner:
    """The rule that stops a poor trial early; steps are epochs finished, from 1."""
    if settings.pruner == "none":
        return NopPruner()
    if settings.pruner == "halving":
        return HalvingRule(rungs(epochs), settings.halving_factor)
    return MedianPruner(
        n_startup_trials=settings.pruner_startup_trials, n_warmup_steps=settings.pruner_warmup_epochs, interval_steps=1
    )
