"""All that a search or a month writes to MLflow: one parent run a study, one child run an attempt at a trial.

Run states are set here and nowhere else: FINISHED for trials with a result (a tag says pruned or diverged), FAILED
with the traceback as an artifact, KILLED for what an interrupted driver left behind. Metrics go out in one batch an
epoch.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial, wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, LifecycleStage, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from lightning_modules.errors import InputError, printable
from search.settings.schema import TrackingSettings
from search.tracking.saved_view import TRIALS_VIEW, trials_view
from search.tracking.served_model import CODE_FOLDERS, requirements, signature
from search.tracking.store import adopt, artifacts_of, check_store, database_uri, explained, make_store

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["MODEL_NOTE_BEGINS", "NOTE", "Tracker", "experiment_tags", "tracking_uri"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_PARAM_LIMIT = 6000  # MLflow's own; a longer value would be refused

NOTE = "mlflow.note.content"
"""Tag that MLflow's UI shows as the description of a run, as Markdown."""

_EXPERIMENT_NOTE = (
    "Searches of Thawline. A run is a search, with a note on what won; its child runs are the trials: expand them with "
    "the + beside its name, filter them with `tags.study = 'NAME'` and `tags.status`, `tags.optimizer`, "
    "`tags.freeze_depth`. The artifact `report/report.html` of a search is all of it on one page."
)

MODEL_NOTE_BEGINS = "Image classifiers that a search of Thawline chose."
"""How the description of a registered model begins; one that begins otherwise is the user's and stays."""


def experiment_tags() -> dict[str, str]:
    """Tags of an experiment that is made."""
    return {"mlflow.experimentKind": "custom_model_development", NOTE: _EXPERIMENT_NOTE}


def tracking_uri(root: Path) -> str:
    """URI of the sqlite store under `root`, as `mlflow ui --backend-store-uri` takes it."""
    return database_uri(root / "mlflow.db")


def _guarded(method: Callable[Concatenate[Tracker, _P], _R]) -> Callable[Concatenate[Tracker, _P], _R]:
    """The method; an error of the store is raised as a `StoreError` of one line."""

    @wraps(method)
    def guarded(self: Tracker, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self._called(partial(method, self, *args, **kwargs))

    return guarded


class Tracker:
    """Writes to the store under `root`, creating it once, however many processes start at the same time.

    Args:
        experiment: MLflow experiment, created when missing.
        restore: whether the experiment, and runs that are resumed, are brought back where they were deleted in MLflow.

    Raises:
        StoreError: here and in every method: the store is damaged, locked, full or not writable.
        InputError: the experiment was deleted in MLflow.
    """

    def __init__(self, root: Path, experiment: str, *, restore: bool = False) -> None:
        self._root, self._restore = root, restore
        self._open(experiment)

    @classmethod
    def of(cls, settings: TrackingSettings) -> Tracker:
        """The one that the settings name."""
        return cls(settings.root, settings.experiment, restore=settings.restore)

    @_guarded
    def _open(self, experiment: str) -> None:
        self._connect(experiment)

    @property
    def uri(self) -> str:
        """Of the store, for MLflow."""
        return tracking_uri(self._root)

    @property
    def place(self) -> str:
        """Where the runs are, for people."""
        return printable(self._root / "mlflow.db")

    def _called(self, call: Callable[[], _R]) -> _R:
        """What a call of the store gives; its errors as `StoreError`."""
        with explained(self._root):
            return call()

    def _connect(self, experiment: str) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)  # migrations announce themselves line by line
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints tracebacks of what it raises
        with FileLock(self._root / "mlflow.lock"):
            new = not check_store(self._root, write=True)
            if not (self._root / "mlflow.db").exists():
                make_store(self._root)
            weakref.finalize(self, os.close, adopt(self._root))
            self._client = MlflowClient(tracking_uri(self._root), registry_uri=tracking_uri(self._root))
            _artifact_repos_cache.clear()  # by run alone, and a copy of this store has the same runs
            self._open_experiment(experiment, (self._root / "artifacts").resolve().as_uri())
            with closing(sqlite3.connect(self._root / "mlflow.db")) as database:
                if new:
                    database.execute("PRAGMA journal_mode=WAL")  # halves the cost of a batch of metrics
                self._last = database.execute("SELECT max(timestamp) FROM latest_metrics").fetchone()[0] or 0

    def _open_experiment(self, experiment: str, location: str | None = None) -> None:
        """Find the experiment or create it, with the view of trials that MLflow opens on.

        Args:
            location: of the artifacts of a new one; None lets the server decide.
        """
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            self.experiment_id = self._client.create_experiment(experiment, location, experiment_tags())
        else:
            self.experiment_id = found.experiment_id
            if found.lifecycle_stage == LifecycleStage.DELETED:
                self._restore_experiment(experiment)
        if found is None or found.tags.get(TRIALS_VIEW) != trials_view():
            self._client.set_experiment_tag(self.experiment_id, TRIALS_VIEW, trials_view())

    def _restore_experiment(self, experiment: str) -> None:
        if not self._restore:
            raise InputError(
                f"experiment {experiment!r} was deleted in MLflow; tracking.restore=true brings it back "
                "with all its runs, or take another tracking.experiment"
            )
        self._client.restore_experiment(self.experiment_id)

    def active(self, run_id: str) -> bool:
        """Whether there is such a run and it was not deleted in MLflow."""
        return self._stage(run_id) == LifecycleStage.ACTIVE

    def resumable(self, run_id: str) -> bool:
        """Whether `resume` finds it: it is active, or was deleted and is to be restored."""
        return self._stage(run_id) in (LifecycleStage.ACTIVE, *([LifecycleStage.DELETED] if self._restore else []))

    @_guarded
    def _stage(self, run_id: str) -> str:
        """active, deleted (a run in MLflow's bin), or gone."""
        try:
            return str(self._client.get_run(run_id).info.lifecycle_stage)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return "gone"
            raise

    @_guarded
    def start_parent(self, name: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> str:
        """Start the run of a study; returns its id."""
        return self._start(name, params, tags)

    @_guarded
    def start_trial(self, parent: str, name: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> str:
        """Start the run of one attempt at a trial, as a child of the study's run; returns its id."""
        return self._start(name, params, {**tags, "mlflow.parentRunId": parent})

    def _start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> str:
        run = self._client.create_run(self.experiment_id, run_name=name, tags={k: _short(v) for k, v in tags.items()})
        run_id: str = run.info.run_id
        rows = [Param(k, _short(v)) for k, v in params.items()]
        for start in range(0, len(rows), 100):  # MLflow's limit of one batch
            self._client.log_batch(run_id, params=rows[start : start + 100])
        return run_id

    @_guarded
    def resume(
        self, run_id: str, tags: Mapping[str, Any] | None = None, *, anew: str = "search.fresh=true starts a study anew"
    ) -> None:
        """Set a run that an earlier driver left back to running.

        Args:
            anew: what to do without it, for the message.

        Raises:
            InputError: it was deleted in MLflow.
        """
        stage = self._stage(run_id)
        if stage == "gone":
            raise InputError(
                f"run {run_id} is no longer in {self.place}: it was deleted for good, or is "
                f"of another store; put back a copy of the store that holds it, or {anew}"
            )
        if stage == LifecycleStage.DELETED:
            if not self._restore:
                raise InputError(
                    f"run {run_id} was deleted in MLflow; tracking.restore=true brings it back with its trials, {anew}"
                )
            self._bring_back(run_id)
        self.log(run_id, {}, tags=tags)
        self._client.update_run(run_id, status="RUNNING")

    def _bring_back(self, run_id: str) -> None:
        """Restore a deleted run and the runs below it."""
        query = f"tags.`mlflow.parentRunId` = '{run_id}'"
        children = self._client.search_runs(
            [self._client.get_run(run_id).info.experiment_id], query, ViewType.DELETED_ONLY, max_results=50_000
        )
        for one in (run_id, *(child.info.run_id for child in children)):
            self._client.restore_run(one)

    @_guarded
    def log(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        *,
        step: int = 0,
        tags: Mapping[str, Any] | None = None,
        earlier: Mapping[int, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        """Log metrics and tags, up to a hundred of each in one batch, MLflow's limit for tags.

        Values that are not finite are left out: they break MLflow's charts.

        Args:
            step: of the metrics.
            earlier: step -> metrics that are logged along with them.
        """
        # Of two values at one step MLflow takes that of the later time for the latest, and a clock may be set back.
        self._last = max(int(time.time() * 1000), self._last + 1)
        rows = [
            Metric(name, float(value), self._last, at)
            for at, found in (*earlier.items(), (step, metrics))
            for name, value in found.items()
            if abs(float(value)) < float("inf")
        ]
        said = [RunTag(k, _short(v)) for k, v in (tags or {}).items()]
        for start in range(0, max(len(rows), len(said)), 100):
            self._client.log_batch(run_id, metrics=rows[start : start + 100], tags=said[start : start + 100])

    @_guarded
    def finish(self, run_id: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status)

    @_guarded
    def kill(self, run_id: str, earlier: Mapping[int, Mapping[str, float]] = MappingProxyType({})) -> None:
        """Close a run that was interrupted as KILLED, with its reason; one that was deleted in MLflow is left.

        Args:
            earlier: see `log`.
        """
        if not self.active(run_id):
            return
        self.log(run_id, {}, tags={"status": "killed", "reason": "the search was interrupted"}, earlier=earlier)
        self.finish(run_id, "KILLED")

    @_guarded
    def kill_open_runs(self, parent: str) -> int:
        """Close every child run that an interrupted driver left RUNNING; returns how many there were."""
        runs = self._client.search_runs(
            [self.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'",
            max_results=1000,
        )
        for run in runs:
            self.kill(run.info.run_id)
        return len(runs)

    @_guarded
    def kill_open_study(self, study: str) -> None:
        """Close the runs of a driver of this study that was killed before it recorded its run in the study."""
        runs = self._client.search_runs(
            [self.experiment_id], f"tags.study = '{study}' and attributes.status = 'RUNNING'", max_results=1000
        )
        for run in runs:
            self.kill_open_runs(run.info.run_id)
            self.kill(run.info.run_id)

    @_guarded
    def log_text(self, run_id: str, text: str, file: str) -> None:
        """Log a text artifact."""
        self._client.log_text(run_id, text, file)

    @_guarded
    def log_figure(self, run_id: str, figure: Figure, file: str) -> None:
        """Log a figure as PNG."""
        self._client.log_figure(run_id, figure, file, save_kwargs={"dpi": 150, "bbox_inches": "tight"})

    @_guarded
    def log_table(self, run_id: str, table: pd.DataFrame, file: str) -> None:
        """Log a table that the UI can show and compare, instead of one of that name that is there."""
        self._remove_artifact(run_id, file)  # MLflow would append to it
        self._client.log_table(run_id, table, file)

    def _remove_artifact(self, run_id: str, file: str) -> None:
        self.artifact(run_id, file).unlink(missing_ok=True)

    @_guarded
    def log_images(self, run_id: str, images: Sequence[tuple[int, NDArray[np.uint8]]], key: str) -> None:
        """Log pictures that the UI shows one at a time, with a slider over their steps.

        Args:
            images: (step, picture (H, W, 3)) of each.
            key: their name together: ASCII letters, digits, spaces, dots, slashes, - and _.
        """
        for step, pixels in images:
            self._client.log_image(run_id, pixels, key=key, step=step, synchronous=True)

    @_guarded
    def log_dataset(self, run_id: str, counts: pd.DataFrame, *, name: str, source: str, digest: str) -> None:
        """Log the data set as a run input: digest and number of images by class and split."""
        with warnings.catch_warnings():
            # Hints on schemas and sources for tables that are themselves the data; ours only counts images.
            warnings.simplefilter("ignore", UserWarning)
            dataset = from_pandas(counts, source=_short(source), name=name, digest=digest[:32])
            entity = DatasetInput(dataset._to_mlflow_entity(), tags=[InputTag("mlflow.data.context", "training")])
        self._client.log_inputs(run_id, [entity])

    @_guarded
    def register(
        self, run_id: str, folder: Path, *, model_name: str, alias: str, tags: Mapping[str, Any], note: str
    ) -> str:
        """Log a model folder as a serving model and register it under `alias`; returns the version.

        `note` describes the version, and the model too unless its user did. The run's metrics become the model's.
        """
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        packages = Path(__file__).resolve().parents[2]
        with warnings.catch_warnings(), mlflow.start_run(run_id=run_id):
            # An example would be a picture of the user's, copied into the registry; the signature is given instead.
            warnings.filterwarnings("ignore", message=".*input example was not provided.*")
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"model": str(folder)},
                code_paths=[str(packages / part) for part in CODE_FOLDERS],
                signature=signature(),
                pip_requirements=requirements(),
                metadata={k: str(v) for k, v in tags.items()},
            )
        # start_run closes the run on leaving; the study is not over yet.
        self._client.update_run(run_id, status="RUNNING")
        found = self._client.search_registered_models(f"name = '{model_name}'")
        if not found:
            self._client.create_registered_model(model_name)
        version = self._client.create_model_version(
            model_name, logged.model_uri, run_id, tags={k: str(v) for k, v in tags.items()}, description=note,
            model_id=logged.model_id,
        )  # fmt: skip
        self._client.set_registered_model_alias(model_name, alias, version.version)
        if not found or (found[0].description or MODEL_NOTE_BEGINS).startswith(MODEL_NOTE_BEGINS):
            self._client.update_registered_model(model_name, _model_note(model_name, version.version, note))
        return str(version.version)

    @_guarded
    def forget_versions(self, run_id: str, model_name: str, alias: str, *, after: int) -> None:
        """Delete model versions that an interrupted driver registered but never recorded in the study.

        Args:
            alias: that such a version may have; one with another alias is in use and stays.
            after: the last version of the run that is known, 0 for none.
        """
        found = self._client.search_model_versions(f"name = '{model_name}'")
        for lost in (v for v in found if v.run_id == run_id and int(v.version) > after):
            named = [name for name, version in self.aliases(model_name).items() if version == str(lost.version)]
            if not set(named) - {alias}:
                for name in named:
                    self._client.delete_registered_model_alias(model_name, name)
                self._client.delete_model_version(model_name, lost.version)

    @_guarded
    def versions(self, model_name: str) -> dict[str, str]:
        """Version -> run that made it, of a registered model without what was deleted."""
        found = self._client.search_model_versions(f"name = '{model_name}'")
        return {str(one.version): str(one.run_id) for one in found}

    @_guarded
    def aliases(self, model_name: str) -> dict[str, str]:
        """Alias -> version of a registered model; empty where there is none of that name."""
        found = self._client.search_registered_models(f"name = '{model_name}'")
        return {str(alias): str(version) for alias, version in found[0].aliases.items()} if found else {}

    @_guarded
    def set_alias(self, model_name: str, alias: str, version: str | None) -> None:
        """Let an alias name a version, or nothing."""
        if version is not None:
            self._client.set_registered_model_alias(model_name, alias, version)
        elif alias in self.aliases(model_name):
            self._client.delete_registered_model_alias(model_name, alias)

    @_guarded
    def version_tags(self, model_name: str, version: str) -> tuple[str, dict[str, str]]:
        """Run and tags of a registered version."""
        found = self._client.get_model_version(model_name, version)
        return str(found.run_id), {str(k): str(v) for k, v in found.tags.items()}

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Log a file as an artifact under its own name."""
        self._client.log_artifact(run_id, str(path), folder)

    def artifact(self, run_id: str, file: str) -> Path:
        """Where an artifact of a run lies; it need not exist."""
        return artifacts_of(self._root, run_id) / file


def _short(value: Any) -> str:
    # Names of files may hold bytes that are not UTF-8, which no database takes.
    text = os.fsencode(str(value)).decode("utf-8", "backslashreplace")
    return text if len(text) <= _PARAM_LIMIT else text[: _PARAM_LIMIT - 1] + "…"


def _model_note(model_name: str, version: str, newest: str) -> str:
    """Description of a registered model, from that of its newest version."""
    return (
        f"{MODEL_NOTE_BEGINS} `models:/{model_name}@challenger` is the newest, "
        f"`models:/{model_name}@champion` the one in use where months are retrained; they take image files or bytes."
        "\n\n"
        f"Newest, version {version}: {newest}"
    )
