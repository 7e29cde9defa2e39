"""What a sampler is shown of a study: a copy in memory in which trials that wait at a rung are pruned there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

__all__ = ["SamplerView"]


class SamplerView:
    """Copies of a study for one sampler after another.

    To Optuna, a trial that waits is running. A sampler would take it for as bad as the worst ("constant liar"),
    although its score is known: in a study where trials wait for each other, most of what there is to learn from.

    Args:
        study: the study.
        both: whether the sampler sees a second objective, `map_spread` of the trials' attributes, to be minimised.
            Diverged trials are then complete ones with the worst of both: no trial of such a study was pruned.
    """

    def __init__(self, study: optuna.Study, *, both: bool = False) -> None:
        self._study, self._both = study, both
        self._shown: dict[int, _Shown] = {}

    def study(self, waiting: Collection[int], sampler: BaseSampler) -> optuna.Study:
        """The study as `sampler` may see it now; what it asks there stays there.

        Args:
            waiting: numbers of the trials that wait.
            sampler: of the copy.
        """
        storage = InMemoryStorage()
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        number = storage.create_new_study([up, down] if self._both else [up], self._study.study_name)
        for trial in self._study.get_trials(deepcopy=False):
            storage.create_new_trial(number, template_trial=self._what_counts(trial, trial.number in waiting))
        return optuna.load_study(study_name=self._study.study_name, storage=storage, sampler=sampler)

    def _what_counts(self, trial: FrozenTrial, waits: bool) -> _Shown:
        """What a sampler reads of a trial, made once for those that cannot change any more."""
        if trial.number in self._shown:
            return self._shown[trial.number]
        state, values = TrialState.PRUNED if waits else trial.state, trial.values
        if self._both and state is TrialState.COMPLETE and values:
            values = [values[0], trial.user_attrs.get("map_spread", 1.0)]
        elif self._both and state is TrialState.PRUNED:
            state, values = TrialState.COMPLETE, [0.0, 1.0]
        shown = _Shown(
            number=trial.number,
            state=state,
            value=None,
            values=values,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_start if waits else trial.datetime_complete,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values=trial.intermediate_values,
            trial_id=trial.number,
        )
        if trial.state.is_finished():
            self._shown[trial.number] = shown
        return shown


class _Shown(FrozenTrial):
    """A trial that no storage copies: copying a thousand of them for each one asked took most of the driver's time."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shown:
        return self
