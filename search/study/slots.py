"""Slots of a study: which are filled, which attempts were lost, which comes next, how far each trial has come."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import replace

import optuna

from search.errors import StudyStalledError
from search.settings.schema import SearchSettings
from search.study.promotion import Standing
from search.study.record import TrialFeed, TrialRecord

__all__ = ["Slots", "standings_of"]


class Slots:
    """The slots of a study that may go on, read from it; what can no longer change is read once."""

    def __init__(self, study: optuna.Study) -> None:
        self._feed = TrialFeed(study)
        self._attempts: dict[int, list[TrialRecord]] = {}
        self._filled: set[int] = set()
        self._errors: dict[int, int] = {}
        self._standings: list[Standing] = []
        self._open: list[TrialRecord] = []
        self._known: dict[int, Standing] = {}  # of open trials, by their number

    @property
    def filled(self) -> frozenset[int]:
        """Slots with a finished trial."""
        self._update()
        return frozenset(self._filled)

    def attempts(self, slot: int) -> list[TrialRecord]:
        """The attempts at a slot, in order."""
        self._update()
        return [*self._attempts.get(slot, []), *(t for t in self._open if t.has_slot and t.slot == slot)]

    def next(self, settings: SearchSettings, busy: Collection[int]) -> int | None:
        """The lowest slot that is neither filled, busy nor given up; None when no more trials are needed.

        Args:
            settings: how many finished trials to reach, and after how many errors a slot is given up.
            busy: slots whose trial runs or waits at a rung.

        Raises:
            StudyStalledError: three slots in a row were given up.
        """
        self._update()
        most = settings.max_attempts
        # Only attempts that died of an error count towards giving up; interruptions do not.
        given_up = {slot for slot, count in self._errors.items() if count >= most and slot not in self._filled}
        latest = sorted(self._filled | given_up)[-3:]
        if len(latest) == 3 and set(latest) <= given_up:
            trial = self._attempts[latest[-1]][-1]
            raise StudyStalledError(
                f"three trials in a row failed {most} times each, the last with {trial.error}; "
                "the tracebacks are artifacts of their runs; raise search.max_attempts to try them again"
            )
        taken = self._filled.union(busy)
        if len(taken) >= settings.trials:
            return None
        return next(slot for slot in itertools.count() if slot not in taken and slot not in given_up)

    def standings(self, waiting: Collection[int]) -> list[Standing]:
        """How far each trial has come; those that were lost, diverged or reached no epoch are left out.

        Args:
            waiting: slots of the trials that wait at a rung.
        """
        self._update()
        known, self._known = self._known, {}
        for trial in self._open:
            before, scores = known.get(trial.number), trial.scores
            if before is not None and len(before.scores) == len(scores):
                waits = before.slot in waiting
                self._known[trial.number] = before if before.waiting is waits else replace(before, waiting=waits)
            elif _competes(trial):
                self._known[trial.number] = _standing(trial, trial.slot in waiting)
        return [*self._standings, *self._known.values()]

    def _update(self) -> None:
        ended, self._open = self._feed.news()
        for trial in (t for t in ended if t.has_slot):
            slot = trial.slot
            self._attempts.setdefault(slot, []).append(trial)
            self._errors[slot] = self._errors.get(slot, 0) + bool(trial.error)
            if trial.finished:
                self._filled.add(slot)
                if _competes(trial):
                    self._standings.append(_standing(trial, waits=False))


def standings_of(trials: Iterable[TrialRecord]) -> list[Standing]:
    """Of finished trials, those that others are compared with."""
    return [_standing(trial, waits=False) for trial in trials if _competes(trial)]


def _competes(trial: TrialRecord) -> bool:
    return bool(trial.scores) and trial.has_slot and trial.outcome != "diverged"


def _standing(trial: TrialRecord, waits: bool) -> Standing:
    return Standing(trial.slot, trial.freeze_depth, dict(trial.scores), waits, trial.network, trial.losses, trial.maps)
