"""The Optuna study of a search: its journal file and its finished trials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lightning_modules.errors import InputError, printable
from search.trial.files import TrialFiles

__all__ = ["FINISHED", "finished_trials", "load_or_create", "open_storage", "repair_journal"]

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_LONGEST_LINE = 1 << 26  # bytes; the evidence of a study is its longest, thousands of times shorter
_DIGESTS = {
    "data_digest": "other images or labels (some were added, removed or changed since)",
    "splits_digest": "other splits",
    "weights_digest": "other pre-trained weights",
}


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


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials (complete or pruned), one a slot, by slot."""
    done = [t for t in study.get_trials(deepcopy=False) if t.state in FINISHED and "slot" in t.user_attrs]
    return sorted(done, key=lambda t: int(t.user_attrs["slot"]))


def load_or_create(path: Path, name: str, identity: Mapping[str, Any], *, fresh: bool) -> tuple[optuna.Study, bool]:
    """Open the study `name` in the journal at `path`, or create it; returns it and whether it existed.

    Args:
        path: the journal.
        name: of the study.
        identity: dotted setting -> value of everything that would make it another study.
        fresh: forget the earlier study.

    Raises:
        InputError: the study exists with another identity (names the first setting that differs).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        path.unlink(missing_ok=True)
        TrialFiles.of(path).close()
    repair_journal(path)
    existed = path.exists()
    storage = open_storage(path)
    if existed and name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
    else:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    before = study.user_attrs.get("identity")
    now = json.loads(json.dumps(dict(identity)))
    if before is None:
        study.set_user_attr("identity", now)
    elif before != now:
        key = next(k for k in [*now, *before] if before.get(k) != now.get(k))
        what = _DIGESTS.get(key)
        difference = f"{what}: {key}={before.get(key)!r}" if what else f"{key}={before.get(key)!r}"
        raise InputError(
            f"study {name!r} was made with {difference}, now {now.get(key)!r}; "
            "take another search.study, or search.fresh=true to start anew"
        )
    return study, existed
