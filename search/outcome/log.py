"""The parent run of a study in MLflow: what it is started with, and its figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.errors import printable
from search.evidence.record import Evidence, TypicalMaps
from search.outcome.evidence_figure import evidence_figure
from search.outcome.figures import MAPS_BEFORE, block_slides, curves_figure, histogram_figure
from search.outcome.scorecard import scorecard, scorecard_table, seen_depths
from search.outcome.stopped import log_stopped
from search.outcome.winner import package_versions
from search.pages.dark_figure import darken
from search.settings.plain import flatten
from search.study.judge import best_seen
from search.study.notes import begun_note, study_note
from search.study.record import StudyRecord, Winner, first_network, of_evidence
from search.study.run import StudyRun
from search.tracking.tracker import NOTE, Tracker
from search.trial.result import TrialParams, describe_params
from search.trial.task import Task

__all__ = ["EVIDENCE_FIGURE", "EVIDENCE_FIGURE_DARK", "log_outcome", "parent_run", "split_counts"]

EVIDENCE_FIGURE, EVIDENCE_FIGURE_DARK = "figures/evidence.png", "figures/evidence_dark.png"
"""Artifacts of the parent run: the same figure on light and on dark ground."""


def parent_run(task: Task, record: StudyRecord, tracker: Tracker) -> str:
    """Start the parent run with parameters, data set, versions and commit, or resume the one of an earlier call."""
    settings, name = task.settings, record.name
    if (existing := record.parent) is not None:
        anew = f"search.fresh=true (in retraining: removing studies/{printable(name)}.journal) starts the study anew"
        tracker.resume(existing, anew=anew)
        return existing
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
            NOTE: begun_note(task, name),
            **({"size": found.why} if (found := task.images.resolution) is not None and found.why else {}),
            **{f"version.{package}": found for package, found in package_versions().items()},
        },
    )
    try:
        counts = split_counts(task)
        frame = pd.DataFrame({"class": list(task.classes), **{s: list(c.values()) for s, c in counts.items()}})
        source = str(settings.data.path or "simulated")
        tracker.log_dataset(parent, frame, name=name, source=source, digest=task.index.digest)
        tracker.log_figure(parent, histogram_figure(counts), "figures/classes.png")
    except BaseException:  # Ctrl-C included: the study does not know this run yet, so nothing else would close it
        tracker.kill(parent)
        raise
    record.parent = parent
    return parent


def split_counts(task: Task) -> dict[str, dict[str, int]]:
    """Split (train and validation of the first fold, test) -> class -> images."""
    fold = task.splits.folds[0]
    parts = {"train": fold.train, "validation": fold.val, "test": task.splits.test}
    labels = {split: task.image_index.labels[task.image_rows(rows)] for split, rows in parts.items()}
    return {
        split: {name: int((found == i).sum()) for i, name in enumerate(task.classes)} for split, found in labels.items()
    }


def log_outcome(run: StudyRun, winner: Winner) -> None:
    """Log the training curves of all trials, the winner, how the evidence did and what the activation cache decided."""
    tracker, parent, trials, evidence = run.tracker, run.parent, run.record.finished(), run.record.evidence
    curves = [(describe_params(t.params), t.curve, t.outcome != "complete") for t in trials]
    best = next(i for i, t in enumerate(trials) if t.slot == winner.slot)
    tracker.log_figure(parent, curves_figure(curves, run.metric, best), "figures/training_curves.png")
    note = study_note(
        run.task, run.record.name, winner, trials,
        prior="" if evidence is None else evidence.describe(), test_reads=run.record.test_reads,
    )  # fmt: skip
    tracker.log(
        parent,
        {"best_value": winner.value, "trials": len(trials), "winner_slot": winner.slot},
        tags={"winner": f"trial {winner.slot}: {describe_params(TrialParams(**winner.params))}", NOTE: note},
    )
    caches = {task.network: json.loads(task.cache.describe()) for task in run.task.all}
    decided = caches.get(None, caches)
    tracker.log_text(parent, json.dumps(decided, indent=1), "activation_cache.json")
    log_stopped(run)
    if evidence is not None:
        network = first_network(run.record.identity or {})
        # The figure is of the network that the evidence is of, which need not be the winner's.
        shown = best_seen(t for t in of_evidence(trials, run.record.identity or {}) if t.outcome == "complete")
        won = TrialParams(**winner.params)
        depth = evidence.preferred if shown is None else shown.freeze_depth
        if won.network == network:
            depth = won.freeze_depth
        _log_evidence(run, evidence, depth, network)


def _log_evidence(run: StudyRun, evidence: Evidence, chosen: int, network: str | None) -> None:
    """Log the scorecard as a table and as metrics, and the figure."""
    task, record, tracker, parent = run.task, run.record, run.tracker, run.parent
    trials = record.finished()
    seen = seen_depths(of_evidence(trials, record.identity or {}))
    rows = scorecard(evidence, seen)
    if rows and record.scorecard_trials != len(trials):  # MLflow appends to a table that is there
        tracker.log_table(parent, scorecard_table(rows, len(trials)), "scorecard.json")
        record.scorecard_trials = len(trials)
    image, label = None, ""
    if evidence.maps is not None:
        image = task.inputs(np.array([evidence.maps.row]), np.zeros(1, dtype=np.int64))[0].float().cpu()
        label = task.classes[evidence.maps.label]
        if not record.maps_logged:
            tracker.log_images(parent, _slides(evidence, evidence.maps, image, label), MAPS_BEFORE)
            record.maps_logged = True
    figure = evidence_figure(
        evidence, seen, chosen, metric=run.metric, image=image, label=label, network=network or ""
    )  # fmt: skip
    tracker.log_figure(parent, figure, EVIDENCE_FIGURE)
    darken(figure)
    tracker.log_figure(parent, figure, EVIDENCE_FIGURE_DARK)


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
