"""The journal file that holds a study: opened, written and repaired. Optuna's private names are used here alone."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from lightning_modules.errors import InputError, printable

__all__ = ["open_storage", "repair_journal", "trial_of", "written_together"]

_LONGEST_LINE = 1 << 26  # bytes; the evidence of a study is its longest, thousands of times shorter


class _Lock(JournalFileSymlinkLock):
    """Optuna's lock on a journal, which its holder may take again."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._of_file, self._depth = JournalFileSymlinkLock(str(path)), 0

    def acquire(self) -> bool:
        """Take it; waits for another process."""
        if not self._depth:
            self._of_file.acquire()
        self._depth += 1
        return True

    def release(self) -> None:
        """Give it back as often as it was taken."""
        self._depth -= 1
        if not self._depth:
            self._of_file.release()


class _Journal(JournalFileBackend):
    """Optuna's journal file, in which records may be written together; after a write that failed it takes no other.

    Optuna would wait without end for a lock that it could not remove, and write the next record behind half of one.
    """

    def __init__(self, path: Path) -> None:
        self._lock_of_file = _Lock(path)
        super().__init__(str(path), self._lock_of_file)
        self._failed: OSError | None = None
        self._held: list[str] | None = None  # records of a block that are not on the disk yet, as JSON
        self._first_held = self._known = 0  # number of the first of them; how many records of the file were read

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from that number on, those of a block that is not over included."""
        if self._held is None or log_number_from < self._first_held:
            yield from self._of_file(log_number_from)
        if self._held is not None:
            yield from map(json.loads, self._held[max(0, log_number_from - self._first_held) :])

    def _of_file(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        for number, record in enumerate(super().read_logs(log_number_from), start=log_number_from + 1):
            self._known = max(self._known, number)
            yield record

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the records of the block at its end, however it ends, with one access to the disk instead of many.

        The file stays locked meanwhile, so that the records of no other process come between them. A process that is
        killed within the block leaves some of the first records or none, as it would without one.

        Raises:
            OSError: they cannot be written, now or earlier.
        """
        if self._failed is not None:
            raise self._failed
        with self._turning_errors():
            self._lock_of_file.acquire()
        try:
            for _ in self._of_file(self._known):  # what other processes wrote
                pass
            self._held, self._first_held = [], self._known
            try:
                yield
            finally:
                self._write_held()
        finally:
            with self._turning_errors():
                self._lock_of_file.release()

    def _write_held(self) -> None:
        held, self._held = self._held, None
        if held:
            self.append_logs([json.loads(record) for record in held])
            for _ in self._of_file(self._first_held):  # so that the next reading begins behind them
                pass

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the records, all to the disk, unless they are part of a block.

        Raises:
            OSError: they cannot be written, now or earlier.
        """
        if self._failed is not None:
            raise self._failed
        if self._held is not None:
            self._held += [json.dumps(log) for log in logs]
            return
        with self._turning_errors():
            super().append_logs(logs)

    @contextmanager
    def _turning_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # the latter: its lock could not be removed
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            self._failed = OSError(cause.errno, cause.strerror, self._file_path)
            raise self._failed from error


class _Storage(JournalStorage):
    """Optuna's storage in a journal; several records may be written together."""

    def __init__(self, journal: _Journal) -> None:
        self._journal = journal
        super().__init__(journal)

    def together(self) -> AbstractContextManager[None]:
        """See `_Journal.together`."""
        return self._journal.together()


def written_together(study: optuna.Study) -> AbstractContextManager[None]:
    """A block whose records go to the journal together, at its end; in a database each is written at once.

    Nothing outside the study may rely on them before the block is over.

    Raises:
        OSError: at the end of the block: they cannot be written.
    """
    storage = study._storage
    return storage.together() if isinstance(storage, _Storage) else nullcontext()


def open_storage(path: Path) -> JournalStorage:
    """Optuna's storage in a journal file.

    Raises:
        InputError: the file is damaged or cannot be read; says where, and the way out.
    """
    try:
        return _Storage(_Journal(path))
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
