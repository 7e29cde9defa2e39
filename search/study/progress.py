"""What the user sees while a study runs: a live display on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.command_line.steady_console import SteadyConsole
from search.trial.result import EpochReport, TrialParams
from search.words import epoch_count, spoken

__all__ = ["OUTCOMES", "StudyListener", "StudyProgress", "spoken_params"]

OUTCOMES = {"pruned": "stopped early", "overtime": "over its time"}
"""Outcome of a trial -> what it is called where people read it; others are called as they are."""

_ENOUGH = 0.2  # of the epochs expected, before the time that is left is told
_SURE = (0.75, 1.4)  # factors on the estimate: trials at other depths cost more or less than those so far


def spoken_params(params: TrialParams) -> str:
    """Parameters as people read them: `adam, learning rate 0.001, freeze depth 4`."""
    beta = "" if params.fostering_beta is None else f", fostering beta {params.fostering_beta:g}"
    network = "" if params.network is None else f"{params.network}, "
    rate, depth = f"learning rate {params.learning_rate:.2g}", f"freeze depth {params.freeze_depth}"
    return f"{network}{params.optimizer}, {rate}, {depth}{beta}"


def _span(low: float, high: float) -> str:
    """Two times in seconds, as a guess is said: 40 to 75 s, 3 to 6 min, 1.5 to 2.8 h."""
    if high < 120:
        return f"{low:.0f} to {high:.0f} s"
    if high < 7200:
        return f"{max(low / 60, 1):.0f} to {high / 60:.0f} min"
    return f"{low / 3600:.1f} to {high / 3600:.1f} h"


class StudyListener(Protocol):
    """Shows how the study goes."""

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:
        """An attempt at a slot begins."""

    def epoch(self, slot: int, report: EpochReport) -> None:
        """An epoch is over."""

    def trial_waits(self, slot: int, value: float) -> None:
        """A trial stopped at a rung, for others to catch up."""

    def trial_goes_on(self, slot: int, params: TrialParams, epochs: int) -> None:
        """A trial that waited goes on after so many epochs."""

    def trial_ended(self, slot: int, outcome: str, value: float | None, best: tuple[float, int] | None) -> None:
        """An attempt ended: complete, pruned, diverged or failed; score and slot of the best trial so far."""

    def waiting(self) -> None:
        """Called a few times a second."""


class StudyProgress:
    """The listener of `python -m search` (see `StudyListener`).

    Args:
        finished: how many there are already.
        epochs: of a full trial, over all folds.
        expected: what the trials to come will cost together, about; see `cost`.
        afterwards: the same of what follows the trials: the winner's networks, trained again.
        best: score and slot of the best trial so far, if any.
        on_trial: called when a trial has ended or waits.
        cost: of one epoch of such a trial, in any unit.
        drawn_cost: the same, as `expected` counts it for trials after the first `in_full`, whose depth was not known.
        in_full: how many of the first trials are counted at their own cost.
        whole: whether `expected` counts every trial at its full length, so that what a stopped one saves comes off.
    """

    def __init__(
        self,
        console: Console,
        *,
        trials: int,
        finished: int,
        epochs: int,
        expected: float,
        afterwards: float = 0.0,
        metric: str,
        best: tuple[float, int] | None,
        on_trial: Callable[[], None] = lambda: None,
        cost: Callable[[TrialParams], float] = lambda _: 1.0,
        drawn_cost: float = 1.0,
        in_full: int = 0,
        whole: bool = True,
    ) -> None:
        self._console, self._on_trial = console, on_trial
        self._cost, self._drawn_cost, self._in_full, self._whole = cost, drawn_cost, in_full, whole
        self._trials, self._finished = trials, finished
        self._epochs, self._metric, self._best = epochs, metric, best
        self._started = time.monotonic()
        self._left, self._afterwards = expected, afterwards
        self._done = 0.0
        self._waits: dict[int, int] = {}  # slot -> epochs
        self._running: dict[int, tuple[TrialParams, int, float | None]] = {}
        self._right: dict[int, float] = {}  # slot -> share of the validation images that are right
        self._default: float | None = None  # score of trial 0
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[StudyProgress]:
        """Show the live display while the block runs, on a terminal only."""
        if not self._console.is_terminal:
            try:
                yield self
            finally:
                if isinstance(self._console, SteadyConsole):
                    self._console.doing = ""
            return
        with Live(self._render(), console=self._console, refresh_per_second=4, transient=True) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:
        self._running[slot] = (params, 0, None)
        if attempt:
            self._console.print(f"trial {slot}: attempt {attempt + 1} with the same parameters", highlight=False)
        self.waiting()

    def epoch(self, slot: int, report: EpochReport) -> None:
        params = self._running[slot][0]
        self._running[slot] = (params, report.step + 1, report.value)
        if (accuracy := report.metrics.get("val_accuracy")) is not None:
            self._say_first(slot, params, report, accuracy)
            self._right[slot] = accuracy
        self._done += self._cost(params)
        self._left -= self._foreseen(slot, params)
        self.waiting()

    def _say_first(self, slot: int, params: TrialParams, report: EpochReport, accuracy: float) -> None:
        """The first score of a study, long before its first trial ends."""
        if self._best is not None or self._finished or self._right:
            return
        first = f"First score: {100 * accuracy:.0f} % of the validation images right"
        line = f"{first}, after {epoch_count(report.step + 1)} of trial {slot} ({spoken_params(params)})."
        self._console.print(line, highlight=False, soft_wrap=True)

    def trial_waits(self, slot: int, value: float) -> None:
        params, epochs, _ = self._running.pop(slot)
        self._waits[slot] = epochs
        self._line(slot, params, "waits", value, epochs)

    def trial_goes_on(self, slot: int, params: TrialParams, epochs: int) -> None:
        self._waits.pop(slot, None)
        self._running[slot] = (params, epochs, None)
        self.waiting()

    def trial_ended(self, slot: int, outcome: str, value: float | None, best: tuple[float, int] | None) -> None:
        self._best = best
        if outcome != "failed":
            self._finished += 1
        if slot not in self._running:  # it waited, and its line has been shown
            self._waits.pop(slot, None)
            return
        if slot == 0 and outcome == "complete":
            self._default = value
        params, epochs, _ = self._running.pop(slot)
        if self._whole and outcome != "failed":
            self._left -= (self._epochs - epochs) * self._foreseen(slot, params)
        self._line(slot, params, outcome, value, epochs)

    def _foreseen(self, slot: int, params: TrialParams) -> float:
        """What `expected` counts for an epoch of this trial."""
        return self._cost(params) if slot < self._in_full else self._drawn_cost

    def _line(self, slot: int, params: TrialParams, outcome: str, value: float | None, epochs: int) -> None:
        said = OUTCOMES.get(outcome, outcome)
        score = "" if value is None else f", {spoken(self._metric)} {value:.4f}"
        if (right := self._right.get(slot)) is not None:
            score += f", {100 * right:.0f} % of the validation images right"
        best = f"; best {self._best[0]:.4f} (trial {self._best[1]}{self._gain()})" if self._best else ""
        line = f"trial {slot:>3}  {spoken_params(params)}: {said} after {epoch_count(epochs)}{score}{best}"
        self._console.print(line + self._remaining("; "), highlight=False, soft_wrap=True)
        self.waiting()
        self._on_trial()

    def _gain(self) -> str:
        """What the search has gained so far over the default, by validation images, which chose it."""
        if self._default is None or self._best is None or self._best[1] == 0:
            return ""
        return f", {self._best[0] - self._default:+.4f} to trial 0"

    def waiting(self) -> None:
        if self._live is not None:
            self._live.update(self._render())
        elif isinstance(self._console, SteadyConsole):
            self._console.doing = self._in_words()

    def _in_words(self) -> str:
        """What the trials are at, for where there is no terminal."""
        running = [
            f"trial {slot} in epoch {min(epochs + 1, self._epochs)} of {self._epochs}"
            for slot, (_, epochs, _) in self._running.items()
        ]
        done = f"{self._finished} of {self._trials} trials done{self._waiting_text()}"
        return "; ".join([done, *running]) + self._remaining("; ")

    def _remaining(self, before: str) -> str:
        """The time that is left, as a range; nothing before it can be told."""
        trials = max(self._left, 0.0)
        if not self._done or self._done < _ENOUGH * (self._done + trials) or trials + self._afterwards <= 0:
            return ""
        seconds = (time.monotonic() - self._started) / self._done * (trials + self._afterwards)
        return f"{before}about {_span(*(seconds * factor for factor in _SURE))} left"

    def _waiting_text(self) -> str:
        return f" and {len(self._waits)} waiting" if self._waits else ""

    def _render(self) -> Group:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1, max_width=40)
        grid.add_column(no_wrap=True)
        grid.add_row(
            Text("study", style="bold"),
            ProgressBar(total=self._trials, completed=self._finished, width=24),
            Text(f"{self._finished}/{self._trials} trials{self._waiting_text()}{self._remaining(', ')}"),
        )
        for slot, (params, epochs, value) in self._running.items():
            shown = "" if value is None else f"{spoken(self._metric)} {value:.4f}"
            grid.add_row(
                Text(f"trial {slot}"),
                ProgressBar(total=self._epochs, completed=epochs, width=24),
                Text(f"{epochs}/{self._epochs} epochs {shown}"),
            )
            grid.add_row(Text(""), Text(spoken_params(params), style="dim", no_wrap=True, overflow="ellipsis"), "")
        if self._best:
            grid.add_row(Text("best"), Text(f"{spoken(self._metric)} {self._best[0]:.4f}", style="bold green"),
                         Text(f"trial {self._best[1]}"))  # fmt: skip
        return Group(grid)
