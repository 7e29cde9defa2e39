"""What a study may cost, `search.budget`: seconds, epochs or trials after which no more trials are asked for.

What counts, over all calls together:

- seconds: wall time in which trials ran, whether they came to anything or not; noted every ten seconds, so that a
  killed driver forgets at most as many;
- epochs, in epochs of training everything (`lightning_modules.networks.cost`), and trials: attempts,
  those that died of an error too. An attempt lost to an interruption is asked again and counts once, so that an
  interrupted study ends with the
  same trials as an undisturbed one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_modules.errors import InputError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["Budget", "Spending", "parse_budget"]

_UNITS = {"s": ("s", 1), "min": ("s", 60), "h": ("s", 3600), "epochs": ("epochs", 1), "trials": ("trials", 1)}
_MOST = 1e9
_NOTE_SECONDS = 10.0
_KEPT = "seconds_spent"


@dataclass(frozen=True)
class Budget:
    """An amount of one unit.

    Attributes:
        amount: > 0.
        unit: s, epochs or trials.
        text: as the user wrote it.
    """

    amount: float
    unit: str
    text: str


def parse_budget(text: str) -> Budget:
    """A number with its unit, as in 600s, 90min, 8h, 40epochs, 100trials.

    Raises:
        InputError: it is none, or not in (0, 1e9].
    """
    found = re.fullmatch(r"([0-9]{1,10}(?:\.[0-9]{1,6})?)(s|min|h|epochs|trials)", text)
    if found is None or not 0 < float(found[1]) <= _MOST:
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        raise InputError(
            f"search.budget must be a number above 0 with its unit, as in 600s, 90min, 8h, 40epochs or 100trials, "
            f"got {shown!r}"
        )
    unit, times = _UNITS[found[2]]
    return Budget(float(found[1]) * times, unit, text)


class Spending:
    """What a study has cost so far.

    Args:
        study: the study, which may go on.
        budget: what it may cost; None is never exhausted, and seconds are noted all the same, for a later call.
        epoch_cost: freeze depth -> what an epoch of a trial costs, in epochs of training everything.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        study: optuna.Study,
        budget: Budget | None,
        epoch_cost: Callable[[int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self._study, self._cost, self._clock = study, epoch_cost, clock
        self._before = float(study.user_attrs.get(_KEPT, 0.0))
        self._started: float | None = None
        self._noted = 0.0
        self._closed = 0.0
        self._read = 0
        self._open: list[FrozenTrial] = []

    def begin(self) -> None:
        """Trials run from now on."""
        self._started = self._noted = self._clock()

    def note(self, *, now: bool = False) -> None:
        """Keep the seconds in the study, every ten seconds or at once."""
        if self._started is not None and (now or self._clock() - self._noted >= _NOTE_SECONDS):
            self._noted = self._clock()
            self._study.set_user_attr(_KEPT, self.seconds)

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
        trials = self._study.get_trials(deepcopy=False)
        news = [*(trials[t.number] for t in self._open), *trials[self._read :]]
        self._read, self._open = len(trials), []
        for trial in news:
            if trial.state.is_finished():
                self._closed += self._price(trial)
            else:
                self._open.append(trial)
        return self._closed + sum(map(self._price, self._open))

    def _price(self, trial: FrozenTrial) -> float:
        attrs = trial.user_attrs
        if "slot" not in attrs or (trial.state.name == "FAIL" and "error" not in attrs):
            return 0.0
        if self.budget is None or self.budget.unit == "trials":
            return 1.0
        return len(trial.intermediate_values) * self._cost(int(trial.params["freeze_depth"]))
