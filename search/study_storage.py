"""The Optuna study of a search: its journal file, its finished trials, and what a sampler is shown of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lightning_modules.errors import InputError

__all__ = ["FINISHED", "finished_trials", "load_or_create", "open_storage", "shown_to_sampler", "waiting_room"]

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


def shown_to_sampler(study: optuna.Study, waiting: Collection[int], sampler: BaseSampler) -> optuna.Study:
    """A copy of the study in memory in which trials that wait at a rung are pruned there.

    To Optuna, a trial that waits is running. A sampler would take it for as bad as the worst ("constant liar"),
    although its score is known: in a study where trials wait for each other, most of what there is to learn from.

    Args:
        study: the study.
        waiting: numbers of its trials that wait.
        sampler: of the copy.
    """
    storage = InMemoryStorage()
    number = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], study.study_name)
    for trial in study.get_trials(deepcopy=False):
        storage.create_new_trial(number, template_trial=_what_counts(trial, trial.number in waiting))
    return optuna.load_study(study_name=study.study_name, storage=storage, sampler=sampler)


def _what_counts(trial: FrozenTrial, waits: bool) -> FrozenTrial:
    """What a sampler reads of a trial; the storage copies every attribute, which took most of the driver's time."""
    return FrozenTrial(
        number=trial.number,
        state=TrialState.PRUNED if waits else trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_start if waits else trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values=trial.intermediate_values,
        trial_id=trial.number,
    )


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
