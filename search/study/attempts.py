"""One attempt at a slot while the driver has it: it runs, or waits at a rung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from search.study.notes import run_name
from search.trial.result import TrialParams

if TYPE_CHECKING:
    from search.tracking.tracker import Tracker

__all__ = ["RunningTrial"]


@dataclass
class RunningTrial:
    """One attempt.

    Attributes:
        trial: Optuna's.
        run_id: of its MLflow run.
        attempt: at its slot, from 0.
        params: what it was asked for.
        reason: why it was stopped, empty until then.
        waited: whether it has ever waited at a rung.
    """

    trial: optuna.Trial
    run_id: str
    attempt: int
    params: TrialParams
    reason: str = ""
    waited: bool = False

    @classmethod
    def started(
        cls,
        trial: optuna.Trial,
        params: TrialParams,
        slot: int,
        attempt: int,
        seed: int,
        tracker: Tracker,
        parent: str,
        tags: Mapping[str, Any],
    ) -> RunningTrial:
        """A new one, with a run of its own that has these tags and its place in the study."""
        trial.set_user_attr("slot", slot)
        trial.set_user_attr("attempt", attempt)
        run_id = tracker.start_trial(
            parent,
            run_name(slot, params),
            {**params.searched(), "learning_rate": params.learning_rate, "seed": seed},
            {**tags, "slot": slot, "attempt": attempt, "optuna_trial": trial.number},
        )
        trial.set_user_attr("run_id", run_id)
        return cls(trial, run_id, attempt, params)

    @classmethod
    def resumed(cls, study: optuna.Study, frozen: FrozenTrial) -> RunningTrial:
        """One that an earlier driver left waiting."""
        attrs = frozen.user_attrs
        trial = optuna.Trial(study, frozen._trial_id)
        return cls(trial, str(attrs["run_id"]), int(attrs["attempt"]), TrialParams(**frozen.params), waited=True)

    def keep(self, attrs: Mapping[str, Any]) -> None:
        """Write attributes of the trial into the study."""
        for name, value in attrs.items():
            self.trial.set_user_attr(name, value)
