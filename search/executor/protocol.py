"""What a study asks of whatever runs its trials, and trains the networks of its winner.

An executor knows neither Optuna nor MLflow. It trains the jobs it is given, reports every epoch and waits for the
answer, so that a trial is stopped after exactly the epoch the pruner read, however slow the driver is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search.trial.result import EpochReport, TrialParams, TrialResult, Verdict

__all__ = ["Event", "Executor", "Failed", "Finished", "Job", "Refit", "Refitted", "Reported"]


@dataclass(frozen=True)
class Job:
    """One attempt at one slot of the study.

    Attributes:
        slot: which trial of the study, from 0; at most one job of a slot runs at a time.
        seed: of batches and dropout; belongs to the slot.
        checkpoint: file in which the trial waits at a rung, or from which it goes on.
        reported: epochs that the driver has had of it; more than none for a trial that goes on.
    """

    slot: int
    params: TrialParams
    seed: int
    checkpoint: Path | None = None
    reported: int = 0


@dataclass(frozen=True)
class Refit:
    """One network to train without a report: `trial_network` finds it beside `checkpoint` afterwards.

    Attributes:
        slot: what its event names it by; no other job of that number runs.
        seed: of the trial, as in `Job`.
        checkpoint: of the trial.
        fold: on whose training images; None takes all that are trained on.
    """

    slot: int
    params: TrialParams
    seed: int
    checkpoint: Path
    fold: int | None


@dataclass(frozen=True)
class Reported:
    """An epoch is over; the trial waits for `Executor.answer`."""

    slot: int
    report: EpochReport


@dataclass(frozen=True)
class Finished:
    """The trial ended with a result (full length, pruned or diverged), or waits at a rung."""

    slot: int
    result: TrialResult


@dataclass(frozen=True)
class Failed:
    """The trial ended without a result."""

    slot: int
    traceback: str


@dataclass(frozen=True)
class Refitted:
    """The network of a `Refit` lies where it is looked for, or could not be written."""

    slot: int


Event = Reported | Finished | Failed | Refitted


class Executor(Protocol):
    """Runs jobs beside the driver."""

    @property
    def capacity(self) -> int:
        """How many jobs may run at the same time."""

    def submit(self, job: Job | Refit) -> None:
        """Start a job; the driver never submits more than `capacity`."""

    def poll(self, timeout: float) -> Event | None:
        """The next event, or None when there was none for `timeout` seconds."""

    def answer(self, slot: int, verdict: Verdict) -> None:
        """Answer the last report of a slot: train on, stop as pruned, or wait for another job of the same slot."""

    def cancel(self, slot: int) -> None:
        """Stop a job at its next batch; no event of it need follow."""

    def close(self) -> None:
        """Cancel what still runs and give everything back."""
