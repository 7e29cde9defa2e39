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
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._shown: dict[int, _Shown] = {}

    def study(self, waiting: Collection[int], sampler: BaseSampler) -> optuna.Study:
        """The study as `sampler` may see it now; what it asks there stays there.

        Args:
            waiting: numbers of the trials that wait.
            sampler: of the copy.
        """
        storage = InMemoryStorage()
        number = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], self._study.study_name)
        for trial in self._study.get_trials(deepcopy=False):
            storage.create_new_trial(number, template_trial=self._what_counts(trial, trial.number in waiting))
        return optuna.load_study(study_name=self._study.study_name, storage=storage, sampler=sampler)

    def _what_counts(self, trial: FrozenTrial, waits: bool) -> _Shown:
        """What a sampler reads of a trial, made once for those that cannot change any more."""
        if trial.number in self._shown:
            return self._shown[trial.number]
        shown = _Shown(
            number=trial.number,
            state=TrialState.PRUNED if waits else trial.state,
            value=None,
            values=trial.values,
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
