"""The journal file that holds a study: opened and repaired. Holds the one use of a private name of Optuna's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from lightning_modules.errors import InputError, printable

__all__ = ["open_storage", "repair_journal", "trial_of"]

_LONGEST_LINE = 1 << 26  # bytes; the evidence of a study is its longest, thousands of times shorter


class _Journal(JournalFileBackend):
    """Optuna's journal file; after a write that failed it takes no other.

    Optuna would wait without end for a lock that it could not remove, and write the next record behind half of one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._failed: OSError | None = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the records, all to the disk.

        Raises:
            OSError: they cannot be written, now or earlier.
        """
        if self._failed is not None:
            raise self._failed
        try:
            super().append_logs(logs)
        except (OSError, RuntimeError) as error:  # the latter: its lock could not be removed
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            self._failed = OSError(cause.errno, cause.strerror, self._file_path)
            raise self._failed from error


def open_storage(path: Path) -> JournalStorage:
    """Optuna's storage in a journal file.

    Raises:
        InputError: the file is damaged or cannot be read; says where, and the way out.
    """
    try:
        return JournalStorage(_Journal(path))
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be opened ({error.strerror or error})") from None
    except Exception as error:  # whatever Optuna makes of lines that are not its own
        good = _good_lines(path)
        where = f"line {good + 1}" if good is not None else f"{type(error).__name__}"
        kept = f", keep its first {good} lines (head -n {good})" if good else ""
        raise InputError(
            f"{printable(path)} is damaged ({where}); put back a copy of it{kept}, or search.fresh=true to start anew"
        ) from error


def repair_journal(path: Path) -> int:
    """Remove what a killed driver left: its lock on the journal, and a last line that it had half written.

    The driver had not acted on that line: it goes on only after a line is on disk. Call as the study's owner.

    Returns:
        How many bytes of half a line were cut off.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.is_file():
        return 0
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _LONGEST_LINE)
        file.seek(start)
        tail = file.read()
        last = tail.rfind(b"\n", 0, len(tail) - 1) + 1
        if _is_record(tail[last:]):
            return 0
        file.truncate(start + last)
        return len(tail) - last


def _is_record(line: bytes) -> bool:
    try:
        return not line or (line.endswith(b"\n") and isinstance(json.loads(line), dict))
    except ValueError:
        return False


def _good_lines(path: Path) -> int | None:
    """How many lines come before the first that is no record, None where all are."""
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file) if not _is_record(line)), None)


def trial_of(study: optuna.Study, frozen: FrozenTrial) -> optuna.Trial:
    """A trial that an earlier driver left open, as one that can be reported to and written.

    Optuna makes one only of the storage's own id, which it keeps to itself; its public number is not that id where a
    storage holds several studies.
    """
    return optuna.Trial(study, frozen._trial_id)
