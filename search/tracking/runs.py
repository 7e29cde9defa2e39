"""What MLflow knows of a study's parent run, read for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.errors import InputError, printable
from search.tracking.store import artifacts_of, reading

__all__ = ["ParentRun", "read_parent_run"]


@dataclass(frozen=True)
class ParentRun:
    """The parent run.

    Attributes:
        status: RUNNING, FINISHED, FAILED or KILLED.
        params: by name, as text.
        seconds: phase -> seconds of each call that finished it.
        folder: of its artifacts.
    """

    run_id: str
    experiment: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    seconds: Mapping[str, tuple[float, ...]]
    folder: Path

    def artifact(self, name: str) -> bytes | None:
        """Contents of an artifact, or None where there is none of that name."""
        return (self.folder / name).read_bytes() if (self.folder / name).is_file() else None


def read_parent_run(root: Path, run_id: str) -> ParentRun:
    """Read the parent run of a study from the MLflow store under `root`.

    Raises:
        InputError: no store, no such run in it, or one that was deleted.
    """
    from mlflow.exceptions import MlflowException

    with reading(root) as client:
        if client is None:
            raise InputError(f"there are no runs: no file {printable(root / 'mlflow.db')}; put back a copy of it")
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise InputError(
                f"run {run_id} is no longer in {printable(root / 'mlflow.db')}: it was deleted for good, or is of "
                "another store; put back a copy of mlflow.db that holds it"
            ) from None
        if run.info.lifecycle_stage == "deleted":
            raise InputError(
                f"run {run_id} was deleted in MLflow; the study's search with tracking.restore=true brings it back"
            )
        phases = [name for name in run.data.metrics if name.startswith("seconds_")]
        history = {
            name.removeprefix("seconds_"): tuple(float(m.value) for m in client.get_metric_history(run_id, name))
            for name in phases
        }
        return ParentRun(
            run_id=run_id,
            experiment=client.get_experiment(run.info.experiment_id).name,
            status=run.info.status,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
            seconds=history,
            folder=artifacts_of(root, run_id),
        )
