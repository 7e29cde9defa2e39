"""The winner of a study: chosen, refitted, tested once, explained in numbers, registered as challenger."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.model_file import ModelCard, TrainedModel, save_model
from lightning_modules.training.scores import TestScores, scores_with_intervals
from search.outcome.figures import confusion_figure
from search.settings.schema import Settings
from search.study.notes import version_note
from search.study.record import PACKAGES, Winner, package_versions, recorded_winner
from search.study.sampler import slot_seed
from search.tracking.tracker import Tracker
from search.trial.result import TrialParams
from search.trial.task import Task
from search.trial.training import train_final, trial_network

__all__ = ["PACKAGES", "Winner", "package_versions", "recorded_winner", "refit_and_test"]

_BATCH = 128


def refit_and_test(
    task: Task,
    study: optuna.Study,
    trial: FrozenTrial,
    tracker: Tracker,
    parent: str,
    *,
    clock: Callable[[], float],
    checkpoint: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Winner:
    """Refit, test once, log and register; the result is written to the study last.

    The count of test readings is raised *before* the test images are read, so that it is right even if this process
    dies in between.

    Args:
        task: of the study.
        study: whose winner it is.
        trial: the winner.
        tracker: of the study's experiment.
        parent: id of its MLflow run.
        clock: seconds.
        checkpoint: of the trial; where its network lies beside it, and is wanted as it is, it is not trained again.
        cancelled: asked before every training batch; True raises `TrialCancelledError`.
    """
    started = clock()
    settings = task.settings
    params = TrialParams(**trial.params)
    epochs = int(trial.user_attrs["best_epoch"]) + 1
    seed = slot_seed(settings.seed, int(trial.user_attrs["slot"]))
    if settings.search.refit:
        rows = np.unique(np.concatenate([part for f in task.splits.folds for part in (f.train, f.val)]))
        net = train_final(task, params, seed, rows, epochs, cancelled=cancelled)
    else:
        rows = task.splits.folds[0].train
        net = trial_network(task, params, seed, epochs, checkpoint=checkpoint, cancelled=cancelled)
    scores: TestScores | None = None
    if len(task.splits.test):
        study.set_user_attr("test_reads", int(study.user_attrs.get("test_reads", 0)) + 1)
        scores = _test(task, net, task.splits.test)
        _log_test(task, scores, tracker, parent)
    known = recorded_winner(study)
    tracker.forget_versions(
        parent, settings.tracking.model_name, "challenger", after=int(known.version) if known is not None else 0
    )
    winner_version = _register(task, net, params, scores, tracker, parent, study.study_name, len(rows))
    winner = Winner(
        slot=int(trial.user_attrs["slot"]),
        params=dict(trial.params),
        value=trial.values[0],
        epochs=epochs,
        refit=settings.search.refit,
        images=(len(rows), len(task.splits.test)),
        test=scores.values if scores else None,
        intervals=scores.intervals if scores else None,
        version=winner_version,
        run_id=parent,
        seconds=clock() - started,
    )
    study.set_user_attr("winner", asdict(winner))
    return winner


@torch.no_grad()
def predict(task: Task, net: BlockNet, rows: NDArray[np.int64]) -> torch.Tensor:
    """Logits (N, classes) of the plain images at `rows`."""
    net.eval()
    parts = [net(task.inputs(r, np.zeros_like(r))) for r in np.array_split(rows, -(-len(rows) // _BATCH))]
    return torch.cat(parts)


def _test(task: Task, net: BlockNet, rows: NDArray[np.int64]) -> TestScores:
    labels = torch.from_numpy(task.index.labels[rows])
    return scores_with_intervals(predict(task, net, rows).cpu(), labels, task.classes, seed=task.settings.seed)


def _log_test(task: Task, scores: TestScores, tracker: Tracker, parent: str) -> None:
    intervals = {f"test_{n}_{end}": i[k] for n, i in scores.intervals.items() for k, end in ((0, "low"), (1, "high"))}
    tracker.log(parent, {**{f"test_{n}": v for n, v in scores.values.items()}, **intervals})
    table = pd.DataFrame([{"class": name, **row} for name, row in scores.per_class.items()])
    tracker.log_table(parent, table, "test/per_class.json")
    confusion = pd.DataFrame(scores.confusion, columns=list(task.classes))
    confusion.insert(0, "true class", task.classes)
    tracker.log_table(parent, confusion, "test/confusion.json")
    tracker.log_figure(parent, confusion_figure(scores.confusion, task.classes), "figures/confusion.png")


def _register(
    task: Task,
    net: BlockNet,
    params: TrialParams,
    scores: TestScores | None,
    tracker: Tracker,
    parent: str,
    study_name: str,
    trained: int,
) -> str:
    settings: Settings = task.settings
    card = ModelCard(
        architecture=net.architecture,
        classes=task.classes,
        size=settings.data.size,
        fit=settings.data.fit,
        white_level=task.index.white_level,
        max_pixels=settings.data.max_pixels,
        freeze_depth=params.freeze_depth,
        versions=package_versions(),
    )
    tags = {"study": study_name, **params.searched(), "data_digest": task.index.digest}
    note = version_note(params, scores, network=net.architecture, trained=trained, study=study_name)
    folder = Path(tempfile.mkdtemp(prefix="thawline-"))
    try:
        save_model(folder / "model", TrainedModel(net, card))
        return tracker.register(
            parent,
            folder / "model",
            model_name=settings.tracking.model_name,
            alias="challenger",
            tags={k: json.dumps(v) if isinstance(v, dict) else v for k, v in tags.items()},
            note=note,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
