"""Open a study wherever it is kept: in a journal under `tracking.root`, or in a database that it points to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from lightning_modules.errors import InputError, printable
from lightning_modules.home_folder import home_path
from lightning_modules.whole_file import whole_file
from search.invocation import typed
from search.settings.plain import flatten, shown
from search.settings.schema import Settings
from search.study.database import StudyLock, database_errors, open_database
from search.study.record import FINISHED, Study, StudyRecord
from search.study.storage import open_storage, repair_journal
from search.tracking.store import check_root
from search.trial.files import TrialFiles
from search.trial.keys import INPUTS

__all__ = ["database_of", "load_or_create", "load_study", "open_study", "point_to_database"]

_SHOWN = 5  # names in the line on a study that does not exist
_CHOSEN = ("data.size", "data.fit")  # of the images, where they are left open


def load_study(name: str, root: str | Path = "mlruns") -> Study:
    """Read a study; nothing is written, so it may be done while a search runs.

    Args:
        root: `tracking.root` of the search.

    Raises:
        InputError: no such study (says which there are).
    """
    root = Path(home_path(str(root), "root"))
    study = open_study(root, name)
    record = StudyRecord(study)
    identity = record.identity or {}
    return Study(
        name=name,
        root=root,
        metric=str(identity.get("search.metric", "score")),
        identity=identity,
        trials=tuple(trial.plain() for trial in record.finished()),
        unfinished=sum(t.state not in (*FINISHED, TrialState.FAIL) for t in study.get_trials(deepcopy=False)),
        evidence=record.evidence,
        winner=record.winner,
        run_id=record.parent,
        test_reads=record.test_reads,
        refits_diverged=record.refits_diverged,
    )


def open_study(root: Path, name: str) -> optuna.Study:
    """The Optuna study `name` under `root`, to be read only.

    Raises:
        InputError: no such study (says which there are).
    """
    check_root(root)
    folder = root / "studies"
    kept = [p for kind in ("journal", "storage") for p in folder.glob(f"*.{kind}") if p.is_file()]
    known = sorted({p.name.removesuffix(p.suffix) for p in kept})
    # Never a path made of the name: it comes from the user, and opening a journal creates it.
    if name not in known:
        there = f"no studies yet; run {typed('search', root=root)} first"
        if known:
            rest = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
            there = f"studies: {', '.join(printable(one) for one in known[:_SHOWN])}{rest}"
        raise InputError(f"there is no study {printable(name)!r} in {printable(root)}: {there}")
    if (url := database_of(folder / f"{name}.journal")) is not None:
        with database_errors(url):
            try:
                return optuna.load_study(study_name=name, storage=open_database(url))
            except KeyError:
                raise InputError(f"the database of study {printable(name)!r} does not hold it any more") from None
    try:
        return optuna.load_study(study_name=name, storage=open_storage(folder / f"{name}.journal"))
    except KeyError:
        raise InputError(f"{printable(folder / name)}.journal holds no study {printable(name)!r}") from None


def database_of(path: Path) -> str | None:
    """URL of the database in which a study is kept instead of the journal at `path`; None where it is not."""
    pointer = path.with_suffix(".storage")
    return pointer.read_text().strip() if pointer.is_file() else None


def point_to_database(path: Path, url: str | None) -> None:
    """Say, to commands that are given no `search.storage`, where the study is kept instead of the journal at `path`."""
    pointer = path.with_suffix(".storage")
    if url is None:
        pointer.unlink(missing_ok=True)
    else:
        with whole_file(pointer, alone=False) as temporary:
            temporary.write_text(f"{url}\n")


def load_or_create(
    path: Path,
    name: str,
    identity: Mapping[str, Any],
    *,
    fresh: bool,
    database: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[optuna.Study, bool]:
    """Open the study `name` in the journal at `path` or in a database, or create it; returns it and whether it existed.

    Args:
        identity: dotted setting -> value of everything that would make it another study.
        database: `search.storage`; this process owns the study there until it ends.
        say: called with a line for the user.

    Raises:
        InputError: the study exists with another identity (names the first setting that differs), or elsewhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        path.unlink(missing_ok=True)
        point_to_database(path, None)
    _refuse_two_places(path, name, database)
    if database is None:
        repair_journal(path)
        existed = path.exists()
        storage: BaseStorage = open_storage(path)
        known = existed and name in optuna.get_all_study_names(storage)
    else:
        storage = open_database(database, lock=StudyLock(database, name), say=say)
        existed = known = name in optuna.get_all_study_names(storage)
        if known and fresh:
            optuna.delete_study(study_name=name, storage=storage)
            existed = known = False
        point_to_database(path, database)
    if known:
        study = optuna.load_study(study_name=name, storage=storage)
    else:
        TrialFiles.of(path).close()  # what lies there is of a study that is gone
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    record = StudyRecord(study)
    before, now = record.identity, json.loads(json.dumps(dict(identity)))
    if before is None:
        record.identity = now
        return study, existed
    # A setting that is younger than the study had its default then.
    before = {k: v for k, v in flatten(Settings()).items() if k in now} | before
    if other := [k for k in dict.fromkeys([*now, *before]) if before.get(k) != now.get(k)]:
        # Other images are the cause where their size was chosen and is another too.
        key = next((k for k in other if k not in _CHOSEN), other[0])
        what = INPUTS.get(key)
        difference = f"{what}: {key}={before.get(key)!r}" if what else f"{key}={before.get(key)!r}"
        # These may be chosen, so that nobody has typed another one.
        same = " ".join(f"{k}={shown(before.get(k))}" for k in other) + " continues it; " if key in _CHOSEN else ""
        raise InputError(
            f"study {name!r} was made with {difference}, now {now.get(key)!r}; "
            f"{same}take another search.study, or search.fresh=true to start anew"
        )
    return study, existed


def _refuse_two_places(path: Path, name: str, database: str | None) -> None:
    """Refuse to begin a study in one place that is kept in another."""
    there = database_of(path)
    if there is not None and there != database:
        raise InputError(f"study {name!r} is kept in a database: give search.storage={printable(there)}")
    if database is not None and there is None and path.exists():
        raise InputError(
            f"study {name!r} is kept in {printable(path)}; python -m search.copy_study copies it into the database, "
            "search.fresh=true starts it anew"
        )
