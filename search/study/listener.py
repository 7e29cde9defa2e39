"""What a study tells whoever shows how it goes."""

from __future__ import annotations

from typing import Protocol

from search.trial.result import EpochReport, TrialParams

__all__ = ["StudyListener"]


class StudyListener(Protocol):
    """Whoever shows how the study goes."""

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:
        """An attempt at a slot begins."""

    def epoch(self, slot: int, report: EpochReport) -> None:
        """An epoch is over."""

    def trial_waits(self, slot: int, value: float) -> None:
        """A trial stopped at a rung, for others to catch up."""

    def trial_goes_on(self, slot: int, params: TrialParams, epochs: int) -> None:
        """A trial that waited goes on after so many epochs."""

    def trial_ended(self, slot: int, outcome: str, value: float | None) -> None:
        """An attempt ended: complete, pruned, diverged or failed."""

    def waiting(self) -> None:
        """Called a few times a second."""
