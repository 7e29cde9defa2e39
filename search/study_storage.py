"""The Optuna study of a search: its journal file and its finished trials."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lightning_modules.errors import InputError

__all__ = ["FINISHED", "finished_trials", "load_or_create", "open_storage", "waiting_room"]

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def open_storage(path: Path) -> JournalStorage:
    """Optuna's storage in a journal file."""
    return JournalStorage(JournalFileBackend(str(path)))


def waiting_room(path: Path) -> Path:
    """Folder of the trials that wait at a rung, of the study with its journal at `path`."""
    return path.with_name(f"{path.name.removesuffix('.journal')}.waiting")


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
        shutil.rmtree(waiting_room(path), ignore_errors=True)
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
        raise InputError(
            f"study {name!r} was made with {key}={before.get(key)!r}, now {now.get(key)!r}; "
            "take another search.study, or search.fresh=true to start anew"
        )
    return study, existed
