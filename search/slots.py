"""Slots of a study: which are filled, which attempts were lost, which comes next, how far each trial has come."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.promotion import Standing
from search.settings import SearchSettings
from search.study_storage import FINISHED

__all__ = ["StudyStalledError", "attempts", "next_slot", "standings"]


class StudyStalledError(Exception):
    """Too many slots were given up in a row for more trials to be worth trying."""


def attempts(study: optuna.Study) -> dict[int, list[FrozenTrial]]:
    """Slot -> its attempts, in order."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if "slot" in trial.user_attrs:
            found.setdefault(int(trial.user_attrs["slot"]), []).append(trial)
    return found


def next_slot(study: optuna.Study, settings: SearchSettings, busy: Collection[int]) -> int | None:
    """The lowest slot that is neither filled, busy nor given up; None when no more trials are needed.

    Args:
        study: the study.
        settings: how many finished trials to reach, and after how many errors a slot is given up.
        busy: slots whose trial runs or waits at a rung.

    Raises:
        StudyStalledError: three slots in a row were given up.
    """
    tried, most = attempts(study), settings.max_attempts
    filled = {slot for slot, trials in tried.items() if any(t.state in FINISHED for t in trials)}
    # An interruption is nobody's fault: only attempts that died of an error count towards giving up.
    errors = {slot: sum("error" in t.user_attrs for t in trials) for slot, trials in tried.items()}
    given_up = {slot for slot, count in errors.items() if count >= most and slot not in filled}
    latest = sorted(filled | given_up)[-3:]
    if len(latest) == 3 and set(latest) <= given_up:
        trial = tried[latest[-1]][-1]
        raise StudyStalledError(
            f"three trials in a row failed {most} times each, the last with {trial.user_attrs['error']}; "
            "the tracebacks are artifacts of their runs; raise search.max_attempts to try them again"
        )
    taken = filled.union(busy)
    if len(taken) >= settings.trials:
        return None
    return next(slot for slot in itertools.count() if slot not in taken and slot not in given_up)


def standings(study: optuna.Study, waiting: Collection[int]) -> list[Standing]:
    """How far each trial has come; those that were lost, diverged or reached no epoch are nobody's competitors.

    Args:
        study: the study.
        waiting: slots of the trials that wait at a rung.
    """
    return [
        Standing(
            int(t.user_attrs["slot"]),
            int(t.params["freeze_depth"]),
            t.intermediate_values,
            int(t.user_attrs["slot"]) in waiting,
        )
        for t in study.get_trials(deepcopy=False)
        if t.state is not TrialState.FAIL
        and t.user_attrs.get("outcome") != "diverged"
        and t.intermediate_values
        and "slot" in t.user_attrs
    ]
