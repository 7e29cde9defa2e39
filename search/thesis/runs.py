"""The runs of the thesis's experiments, read back from MLflow: tables and figures are made of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.tracking.store import reading

__all__ = ["ArmRun", "PartRun", "find_part", "read_parts"]


@dataclass(frozen=True)
class ArmRun:
    """One configuration, trained and tested.

    Attributes:
        params: network, weights, optimizer, learning_rate, lr_factor, freeze_depth, epochs, as text.
        metrics: last value by name; test_accuracy and test_weighted_f1 in [0, 1].
        curves: metric -> value by epoch, of val_accuracy and train_accuracy.
        diverged: whether its loss was no longer finite; it has no test scores then.
    """

    run_id: str
    arm: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]
    diverged: bool

    @property
    def freeze_depth(self) -> int:
        """Leading frozen blocks."""
        return int(self.params["freeze_depth"])


@dataclass(frozen=True)
class PartRun:
    """One experiment on one data set.

    Attributes:
        part: lenet, random, transfer, finetune or rates.
        params: of the parent run, as text.
        arms: its finished configurations, in the order in which they were run.
    """

    run_id: str
    part: str
    data: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    arms: tuple[ArmRun, ...]


def find_part(root: Path, experiment: str, key: str) -> PartRun | None:
    """The experiment that was started under this key, the latest of several; None where there is none."""
    with reading(root) as client:
        found = _parents(client, experiment, f"tags.thesis_key = '{key}'")
        return _part(client, found[0]) if found else None


def read_parts(root: Path, experiment: str) -> list[PartRun]:
    """Every finished thesis experiment of an MLflow experiment, oldest first."""
    with reading(root) as client:
        runs = _parents(client, experiment, "tags.protocol = 'thesis' and attributes.status = 'FINISHED'")
        return [_part(client, run) for run in reversed(runs) if "thesis_key" in run.data.tags]


def _parents(client: Any, experiment: str, query: str) -> list[Any]:
    found = None if client is None else client.get_experiment_by_name(experiment)
    if found is None:
        return []
    order = ["attributes.start_time DESC"]
    return list(client.search_runs([found.experiment_id], query, order_by=order, max_results=1000))


def _part(client: Any, parent: Any) -> PartRun:
    runs = client.search_runs(
        [parent.info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time ASC"],
        max_results=1000,
    )
    latest = {run.data.tags["arm"]: run for run in runs}
    tags = parent.data.tags
    arms = tuple(_arm(client, name, run) for name, run in latest.items())
    return PartRun(parent.info.run_id, tags["thesis_part"], tags["data"], tags, parent.data.params, arms)


def _arm(client: Any, name: str, run: Any) -> ArmRun:
    curves = {}
    for metric in ("val_accuracy", "train_accuracy"):
        history = client.get_metric_history(run.info.run_id, metric)
        curves[metric] = [m.value for m in sorted(history, key=lambda m: m.step)]
    diverged = run.data.tags.get("status") == "diverged"
    return ArmRun(run.info.run_id, name, run.data.params, run.data.metrics, curves, diverged)
