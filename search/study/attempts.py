"""One attempt at a slot while the driver has it: it runs, or waits at a rung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study.notes import run_name
from search.study.slots import Slots
from search.tracking.tracker import Tracker
from search.trial.result import TrialParams

if TYPE_CHECKING:
    from search.tracking.tracker import Tracker

__all__ = ["RunningTrial", "resume_open_trials"]


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


_KILLED = "the search was killed while it ran"


def resume_open_trials(
    study: optuna.Study, slots: Slots, tracker: Tracker, parent: str, *, rungs: bool
) -> tuple[int, dict[int, RunningTrial]]:
    """Take up the trials that wait at a rung, tell the others FAIL, and close all their MLflow runs.

    Args:
        study: whose driver this process is.
        slots: of the study.
        tracker: of its runs.
        parent: id of the study's MLflow run.
        rungs: whether trials wait at rungs at all.

    Returns:
        How many were lost, and by slot those that go on.
    """
    open_trials = [t for t in study.get_trials(deepcopy=False) if not t.state.is_finished()]
    # One that went on from a rung goes on from there again.
    waiting = [t for t in open_trials if rungs and t.user_attrs.get("waiting")]
    lost = [t for t in open_trials if t not in waiting]
    for frozen in lost:
        if frozen.state is TrialState.WAITING:
            study.ask()  # pops exactly this one: waiting trials are handed out in order
        elif _stands_still(frozen, slots):
            optuna.Trial(study, frozen._trial_id).set_user_attr("error", _KILLED)
        study.tell(frozen.number, state=TrialState.FAIL)
        # Its run may even say FINISHED: a driver can be killed between that and telling Optuna.
        if run_id := frozen.user_attrs.get("run_id"):
            tracker.kill(run_id)
    tracker.kill_open_runs(parent)
    return len(lost), {int(t.user_attrs["slot"]): RunningTrial.resumed(study, t) for t in waiting}


def _stands_still(lost: FrozenTrial, slots: Slots) -> bool:
    """Whether a trial that was lost with its driver came no further than the attempts before it.

    Such a trial may be what killed the driver, and counts towards giving up its slot; a machine that is started anew
    every night does not, as long as there is an epoch more each time.
    """
    earlier = slots.attempts(int(lost.user_attrs["slot"])) if "slot" in lost.user_attrs else []
    epochs = [len(t.intermediate_values) for t in earlier if t.number != lost.number]
    return len(lost.intermediate_values) <= max(epochs, default=0)
