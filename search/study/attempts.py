"""The attempts at slots that the driver has in hand: each runs or waits at a rung; some an earlier driver left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from search.study.notes import run_name
from search.study.record import OpenTrial, TrialRecord
from search.study.slots import Slots
from search.study.storage import trial_of
from search.tracking.tracker import Tracker
from search.trial.result import TrialParams

__all__ = ["RunningTrial", "resume_open_trials"]

_KILLED = "the search was killed while it ran"


@dataclass
class RunningTrial:
    """One attempt.

    Attributes:
        waited: whether it has ever waited at a rung.
        unlogged: step -> metrics of an epoch that ended it before it ever waited; logged with what became of it.
    """

    trial: optuna.Trial
    run_id: str
    params: TrialParams
    reason: str = ""
    waited: bool = False
    unlogged: dict[int, dict[str, float]] = field(default_factory=dict)

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
        run_id = OpenTrial(trial).run_id = tracker.start_trial(
            parent,
            run_name(slot, params),
            {**params.searched(), "learning_rate": params.learning_rate, "seed": seed},
            {**tags, "slot": slot, "attempt": attempt, "optuna_trial": trial.number},
        )
        return cls(trial, run_id, params)

    @property
    def record(self) -> OpenTrial:
        """Its attributes in the study."""
        return OpenTrial(self.trial)


def resume_open_trials(
    study: optuna.Study, slots: Slots, tracker: Tracker, parent: str, *, rungs: bool
) -> tuple[int, dict[int, RunningTrial]]:
    """Resume the trials that wait at a rung, tell the others FAIL, and close all their MLflow runs.

    One whose run was deleted in MLflow is told FAIL too; the next attempt goes on from its checkpoint.

    Args:
        rungs: whether trials wait at rungs at all.

    Returns:
        How many were lost, and by slot those that go on.
    """
    open_trials = [t for t in map(TrialRecord, study.get_trials(deepcopy=False)) if not t.ended]
    # One that went on from a rung goes on from there again.
    waiting = [t for t in open_trials if rungs and t.waiting and tracker.active(t.run_id)]
    for lost in (t for t in open_trials if t not in waiting):
        if lost.source.state is TrialState.WAITING:
            study.ask()  # pops exactly this one: waiting trials are handed out in order
        elif _stands_still(lost, slots):
            OpenTrial(trial_of(study, lost.source)).error = _KILLED
        study.tell(lost.number, state=TrialState.FAIL)
        # Its run may even say FINISHED: a driver can be killed between that and telling Optuna.
        if lost.run_id:
            tracker.kill(lost.run_id)
    tracker.kill_open_runs(parent)
    found = {t.slot: RunningTrial(trial_of(study, t.source), t.run_id, t.params, waited=True) for t in waiting}
    return len(open_trials) - len(waiting), found


def _stands_still(lost: TrialRecord, slots: Slots) -> bool:
    """Whether a trial that was lost with its driver came no further than the attempts before it.

    Such a trial may be what killed the driver, and counts towards giving up its slot; a machine that is started anew
    every night does not, as long as there is an epoch more each time.
    """
    earlier = slots.attempts(lost.slot) if lost.has_slot else []
    return len(lost.scores) <= max((len(t.scores) for t in earlier if t.number != lost.number), default=0)
