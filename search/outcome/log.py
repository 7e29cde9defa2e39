"""The parent run of a study in MLflow: what it is started with, and its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.errors import InputError, printable
from search.evidence.record import Evidence, TypicalMaps, recorded_evidence
from search.outcome.evidence_figure import evidence_figure
from search.outcome.figures import curves_figure, histogram_figure
from search.outcome.scorecard import scorecard, scorecard_metrics, scorecard_table, seen_depths
from search.outcome.slides import BEFORE, block_slides
from search.outcome.winner import Winner, package_versions
from search.settings.plain import flatten
from search.settings.schema import Settings
from search.study.notes import NOTE, begun_note, study_note
from search.study.storage import finished_trials
from search.tracking.tracker import Tracker
from search.trial.result import TrialParams, describe_params
from search.trial.task import Task

__all__ = ["EVIDENCE_FIGURE", "log_outcome", "parent_run"]

EVIDENCE_FIGURE = "figures/evidence.png"
"""Artifact of the parent run."""


def parent_run(settings: Settings, study: optuna.Study, tracker: Tracker, task: Task, name: str) -> str:
    """Start the parent run with parameters, data set, versions and commit, or resume the one of an earlier call."""
    existing = study.user_attrs.get("parent")
    if existing is not None:
        if not tracker.holds(existing):
            raise InputError(
                f"study {name!r} was logged in another MLflow store, which is no longer in "
                f"{printable(settings.tracking.root)}; put back its mlflow.db, or search.fresh=true to start anew"
            )
        tracker.resume(existing)
        return str(existing)
    tracker.kill_open_study(name)
    parent = tracker.start_parent(
        name,
        flatten(settings),
        {
            "study": name,
            "data_digest": task.index.digest,
            "commit": (commit := _git_commit() or "unknown"),
            "mlflow.source.name": "python -m search",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": commit,
            NOTE: begun_note(task, settings, name),
            **{f"version.{package}": found for package, found in package_versions().items()},
        },
    )
    try:
        counts = _counts(task)
        frame = pd.DataFrame({"class": list(task.classes), **{s: list(c.values()) for s, c in counts.items()}})
        source = str(settings.data.path or "simulated")
        tracker.log_dataset(parent, frame, name=name, source=source, digest=task.index.digest)
        tracker.log_figure(parent, histogram_figure(counts), "figures/classes.png")
    except BaseException:  # Ctrl-C included: the study does not know this run yet, so nobody else would close it
        tracker.kill(parent)
        raise
    study.set_user_attr("parent", parent)
    return parent


def _counts(task: Task) -> dict[str, dict[str, int]]:
    fold = task.splits.folds[0]
    parts = {"train": fold.train, "validation": fold.val, "test": task.splits.test}
    labels = task.index.labels
    return {
        split: {name: int((labels[rows] == i).sum()) for i, name in enumerate(task.classes)}
        for split, rows in parts.items()
    }


def log_outcome(task: Task, study: optuna.Study, tracker: Tracker, parent: str, winner: Winner) -> None:
    """Log the training curves of all trials, the winner, how the evidence did and what the activation cache decided."""
    trials = finished_trials(study)
    curves = [
        (
            describe_params(TrialParams(**t.params)),
            [t.intermediate_values[step] for step in sorted(t.intermediate_values)],
            t.state is optuna.trial.TrialState.PRUNED,
        )
        for t in trials
    ]
    best = next(i for i, t in enumerate(trials) if int(t.user_attrs["slot"]) == winner.slot)
    tracker.log_figure(parent, curves_figure(curves, task.settings.search.metric, best), "figures/training_curves.png")
    tracker.log(
        parent,
        {"best_value": winner.value, "trials": len(trials), "winner_slot": winner.slot},
        tags={
            "winner": f"trial {winner.slot}: {describe_params(TrialParams(**winner.params))}",
            NOTE: study_note(
                task,
                study.study_name,
                winner,
                trials,
                prior="" if (evidence := recorded_evidence(study)) is None else evidence.describe(),
                test_reads=int(study.user_attrs.get("test_reads", 0)),
            ),
        },
    )
    tracker.log_text(parent, task.cache.describe(), "activation_cache.json")
    if evidence is not None:
        _log_evidence(task, study, tracker, parent, winner, evidence)


def _log_evidence(
    task: Task, study: optuna.Study, tracker: Tracker, parent: str, winner: Winner, evidence: Evidence
) -> None:
    """Log the scorecard as a table and as metrics, and the figure."""
    trials = finished_trials(study)
    seen = seen_depths(trials)
    rows = scorecard(evidence, seen)
    tracker.log(parent, scorecard_metrics(rows))
    if rows and study.user_attrs.get("scorecard_trials") != len(trials):  # MLflow appends to a table that is there
        tracker.log_table(parent, scorecard_table(rows, len(trials)), "scorecard.json")
        study.set_user_attr("scorecard_trials", len(trials))
    image, label = None, ""
    if evidence.maps is not None:
        image = task.inputs(np.array([evidence.maps.row]), np.zeros(1, dtype=np.int64))[0].float().cpu()
        label = task.classes[evidence.maps.label]
        if not study.user_attrs.get("maps_logged"):
            tracker.log_images(parent, _slides(evidence, evidence.maps, image, label), BEFORE)
            study.set_user_attr("maps_logged", True)
    chosen, metric = TrialParams(**winner.params).freeze_depth, task.settings.search.metric
    figure = evidence_figure(evidence, seen, chosen, metric=metric, image=image, label=label)
    tracker.log_figure(parent, figure, EVIDENCE_FIGURE)


def _slides(evidence: Evidence, maps: TypicalMaps, image: Tensor, label: str) -> list[tuple[int, NDArray[np.uint8]]]:
    """One image and the mean over its class, block by block."""
    blocks = [
        (number, name, [torch.from_numpy(part.astype(np.float32)) for part in parts])
        for number, (name, *parts) in enumerate(zip(evidence.blocks, maps.example, maps.mean, strict=True), start=1)
    ]
    grey = torch.full_like(image, 0.5)
    captions = (label, f"mean of {label}")
    return block_slides(torch.stack([image, grey]), captions, [(n, name, torch.stack(m)) for n, name, m in blocks])


def _git_commit() -> str | None:
    """Commit of the checkout this runs from, read without starting git."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        return (git / head.removeprefix("ref: ")).read_text().strip()
    except OSError:
        return None
