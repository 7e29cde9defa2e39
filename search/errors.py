"""What can end a command beside bad input: every error that one part of the search raises and another handles."""

from __future__ import annotations

import errno

from lightning_modules.errors import NO_ROOM, InputError, printable

__all__ = [
    "InterruptedSearchError",
    "RefitDivergedError",
    "StoreError",
    "StudyStalledError",
    "TrialCancelledError",
    "TrialOvertimeError",
    "disk_problem",
]

_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


class InterruptedSearchError(Exception):
    """The user stopped the search; the same command continues it."""


class StudyStalledError(Exception):
    """Too many slots were given up in a row for more trials to be worth trying."""


class RefitDivergedError(Exception):
    """A trial's network, as it was refitted, answers with numbers that are not finite.

    Args:
        slot: of the trial.
    """

    def __init__(self, slot: int) -> None:
        super().__init__(f"trial {slot}")
        self.slot = slot


class TrialCancelledError(Exception):
    """The driver asked the trial to stop at once; it has no result."""


class TrialOvertimeError(Exception):
    """The trial took longer than `search.trial_seconds`."""


class StoreError(InputError):
    """The MLflow store, or a file beside it, cannot be read or written; says why and what to do."""


def disk_problem(error: OSError) -> str | None:
    """One line on what a full, read-only or failing disk refused, and what to do; None for any other error."""
    place = printable(error.filename) if error.filename else "a file of the store"
    what = f"{place} cannot be written ({error.strerror})"
    if error.errno in NO_ROOM:
        return f"{what}; make room on the disk, then run the same command again"
    if error.errno in _NOT_WRITABLE:
        what = f"{place} cannot be read or written ({error.strerror})"
        return f"{what}; make it readable and its folder writable, then run the same command again"
    if error.errno == errno.EIO:
        return f"{place} cannot be read or written ({error.strerror}); see to the disk, then run the same command again"
    return None
