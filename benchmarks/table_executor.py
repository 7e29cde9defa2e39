"""An executor whose trials are looked up instead of trained, and a tracker and a listener that show nothing.

With these the driver of a search (`search.study.driver`) runs as it is: it asks, gets every epoch's report, lets trials
wait at rungs, promotes and stops them. Time is simulated, a second for an epoch of training everything.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from search.executor.protocol import Event, Finished, Job, Reported
from search.tracking.tracker import Tracker
from search.trial.result import EpochReport, TrialParams, TrialResult, Verdict

__all__ = ["SilentListener", "SilentTracker", "Spent", "TableExecutor"]


@dataclass(frozen=True)
class Spent:
    """One epoch that was trained.

    Attributes:
        bill: of all epochs until then, this one and the frozen prefixes included, in epochs of training everything.
        params: of the trial.
        epoch: of the trial, from 0.
        value: validation score after it.
        last: whether the trial ended or began to wait after it.
    """

    bill: float
    params: TrialParams
    epoch: int
    value: float
    last: bool


@dataclass
class _Trial:
    """A job that runs."""

    job: Job
    curve: Sequence[float]
    losses: Sequence[float]
    reports: list[EpochReport] = field(default_factory=list)


class TableExecutor:
    """Answers jobs from known curves; a trial that goes on from a rung pays for the epochs after it alone.

    Args:
        curve: validation score after each epoch of a full trial with these parameters.
        losses: validation log loss after each epoch; None takes what the score leaves to 1.
        epoch_cost: freeze depth -> what an epoch costs, in epochs of training everything.
        prefix_cost: the same for computing what is frozen, paid once a freeze depth.
        workers: how many trials run at the same time.
        paid: spent before the first trial.
        maps: epoch, from 1 -> what the maps of a trial with these parameters say then (`search.pruner=maps`).
        map_cost: freeze depth -> what asking them once costs.
    """

    def __init__(
        self,
        curve: Callable[[TrialParams], Sequence[float]],
        epoch_cost: Callable[[int], float],
        prefix_cost: Callable[[int], float] = lambda _: 0.0,
        *,
        losses: Callable[[TrialParams], Sequence[float]] | None = None,
        workers: int = 1,
        paid: float = 0.0,
        maps: Callable[[TrialParams], Mapping[int, dict[str, dict[str, float]]]] = lambda _: {},
        map_cost: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        self.capacity = workers
        self.spent: list[Spent] = []
        self.bill = paid
        self._losses = losses
        self._maps, self._map_cost = maps, map_cost
        self._curve, self._epoch_cost, self._prefix_cost = curve, epoch_cost, prefix_cost
        self._running: dict[int, _Trial] = {}
        self._cached: set[int] = set()
        self._events: list[tuple[float, int, Event]] = []
        self._now, self._made = 0.0, 0

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        trial = self._running[job.slot] = _Trial(job, curve := self._curve(job.params), self._lost(job.params, curve))
        for _ in range(job.reported):
            trial.reports.append(self._epoch(trial))
        depth, took = job.params.freeze_depth, 0.0
        if depth not in self._cached:
            self._cached.add(depth)
            took = self._prefix_cost(depth)
            self.bill += took
        self._train(trial, took)

    def poll(self, timeout: float) -> Event | None:  # noqa: ARG002 - simulated time does not wait
        """See `Executor.poll`."""
        if not self._events:
            return None
        self._now, _, event = heapq.heappop(self._events)
        return event

    def answer(self, slot: int, verdict: Verdict) -> None:
        """See `Executor.answer`."""
        trial = self._running[slot]
        last = trial.reports[-1]
        goes_on = verdict == "train" and len(trial.reports) < len(trial.curve)
        self.bill += last.seconds + last.map_seconds
        self.spent.append(Spent(self.bill, trial.job.params, last.step, last.value, not goes_on))
        if goes_on:
            self._train(trial)
            return
        del self._running[slot]
        stopped = {"train": None, "stop": "pruned", "wait": "waiting"}[verdict]
        cost = len(trial.reports) * self._epoch_cost(trial.job.params.freeze_depth)
        result = TrialResult(last.value, last.loss, last.metrics, tuple(trial.reports), cost, cost, stopped)
        self._happens(0.0, Finished(slot, result))

    def cancel(self, slot: int) -> None:
        """See `Executor.cancel`."""
        self._running.pop(slot, None)
        self._events = [(at, made, event) for at, made, event in self._events if event.slot != slot]
        heapq.heapify(self._events)

    def close(self) -> None:
        """See `Executor.close`."""
        for slot in list(self._running):
            self.cancel(slot)

    def _train(self, trial: _Trial, took: float = 0.0) -> None:
        trial.reports.append(self._epoch(trial))
        last = trial.reports[-1]
        self._happens(took + last.seconds + last.map_seconds, Reported(trial.job.slot, last))

    def _lost(self, params: TrialParams, curve: Sequence[float]) -> Sequence[float]:
        return [1 - value for value in curve] if self._losses is None else self._losses(params)

    def _epoch(self, trial: _Trial) -> EpochReport:
        step = len(trial.reports)
        value, loss = float(trial.curve[step]), float(trial.losses[step])
        seconds = self._epoch_cost(trial.job.params.freeze_depth)
        # As many numbers as a trial reports, so that a tracker has its work; only the first is known.
        metrics = {"val_macro_f1": value, "val_loss": loss, "train_loss": loss, "train_accuracy": value}
        maps = self._maps(trial.job.params).get(step + 1, {})
        asked = self._map_cost(trial.job.params.freeze_depth) if maps else 0.0
        return EpochReport(step, 0, step, value, loss, metrics, seconds, maps, asked)

    def _happens(self, after: float, event: Event) -> None:
        self._made += 1
        heapq.heappush(self._events, (self._now + after, self._made, event))


class SilentTracker(Tracker):
    """Takes all that the driver logs of its runs and keeps nothing."""

    def __init__(self) -> None:
        self._runs = 0

    def start_trial(self, parent: str, name: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> str:  # noqa: ARG002
        """See `Tracker`."""
        self._runs += 1
        return f"run-{self._runs}"

    def active(self, run_id: str) -> bool:  # noqa: ARG002
        """See `Tracker`."""
        return True

    def resume(self, run_id: str, tags: Mapping[str, Any] | None = None) -> None:
        """See `Tracker`."""

    def log(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        *,
        step: int = 0,
        tags: Mapping[str, Any] | None = None,
        earlier: Mapping[int, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        """See `Tracker`."""

    def log_text(self, run_id: str, text: str, file: str) -> None:
        """See `Tracker`."""

    def finish(self, run_id: str, status: str) -> None:
        """See `Tracker`."""

    def kill(self, run_id: str, earlier: Mapping[int, Mapping[str, float]] = MappingProxyType({})) -> None:
        """See `Tracker`."""

    def kill_open_runs(self, parent: str) -> int:  # noqa: ARG002
        """See `Tracker`."""
        return 0


class SilentListener:
    """A `StudyListener` that shows nothing."""

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:
        """See `StudyListener`."""

    def epoch(self, slot: int, report: EpochReport) -> None:
        """See `StudyListener`."""

    def trial_waits(self, slot: int, value: float) -> None:
        """See `StudyListener`."""

    def trial_goes_on(self, slot: int, params: TrialParams, epochs: int) -> None:
        """See `StudyListener`."""

    def trial_ended(self, slot: int, outcome: str, value: float | None, best: tuple[float, int] | None) -> None:
        """See `StudyListener`."""

    def waiting(self) -> None:
        """See `StudyListener`."""
