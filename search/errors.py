"""What can end a command beside bad input: every error that one part of the search raises and another handles."""

from __future__ import annotations

from lightning_modules.errors import InputError

__all__ = ["InterruptedSearchError", "StoreError", "StudyStalledError", "TrialCancelledError", "TrialOvertimeError"]


class InterruptedSearchError(Exception):
    """The user stopped the search; the same command continues it."""


class StudyStalledError(Exception):
    """Too many slots were given up in a row for more trials to be worth trying."""


class TrialCancelledError(Exception):
    """The driver asked the trial to stop at once; it has no result."""


class TrialOvertimeError(Exception):
    """The trial took longer than `search.trial_seconds`."""


class StoreError(InputError):
    """The MLflow store cannot be read or written; says why and what to do."""
