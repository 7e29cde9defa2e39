"""What a study has cost so far, beside what it may cost (`search.budget`)."""

from __future__ import annotations

import time
from collections.abc import Callable

import optuna

from search.settings.budget import Budget
from search.study.record import StudyRecord, TrialFeed, TrialRecord
from search.trial.result import TrialParams

__all__ = ["Spending"]

_NOTE_SECONDS = 10.0


class Spending:
    """What a study has cost so far.

    Args:
        budget: what it may cost; None is never exhausted, and seconds are noted all the same, for a later call.
        epoch_cost: parameters -> what an epoch of a trial costs, in epochs of training everything.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        study: optuna.Study,
        budget: Budget | None,
        epoch_cost: Callable[[TrialParams], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self._cost, self._clock = epoch_cost, clock
        self._feed, self._record = TrialFeed(study), StudyRecord(study)
        self._before = self._record.seconds_spent
        self._started: float | None = None
        self._noted = 0.0
        self._closed = 0.0

    def begin(self) -> None:
        """Trials run from now on."""
        self._started = self._noted = self._clock()

    def note(self, *, now: bool = False) -> None:
        """Keep the seconds in the study, every ten seconds or at once."""
        if self._started is not None and (now or self._clock() - self._noted >= _NOTE_SECONDS):
            self._noted = self._clock()
            self._record.seconds_spent = self.seconds

    @property
    def seconds(self) -> float:
        """Wall time in which trials ran, of all calls."""
        return self._before + (self._clock() - self._started if self._started is not None else 0.0)

    @property
    def exhausted(self) -> bool:
        """Whether no more trials are to be asked for."""
        if self.budget is None:
            return False
        return (self.seconds if self.budget.unit == "s" else self._of_trials()) >= self.budget.amount

    def _of_trials(self) -> float:
        """Epochs or trials; what can no longer change is read once."""
        ended, still_open = self._feed.news()
        self._closed += sum(map(self._price, ended))
        return self._closed + sum(map(self._price, still_open))

    def _price(self, trial: TrialRecord) -> float:
        interrupted = trial.ended and not trial.finished and not trial.error
        if interrupted or not trial.has_slot:
            return 0.0
        if self.budget is None or self.budget.unit == "trials":
            return 1.0
        return len(trial.scores) * self._cost(trial.params)
