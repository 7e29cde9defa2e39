"""Step 4: the shorter search of a month: from the champion's weights and best parameters, around the depth decided."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.errors import InputError
from lightning_modules.images.splits import Fold, Splits
from lightning_modules.networks.freezing import epoch_equivalents
from lightning_modules.networks.model_file import check_digests, save_model
from search.pipeline import run_study
from search.retrain.champion import Champion, widened
from search.retrain.month.context import MonthContext
from search.settings.schema import Settings
from search.study.opening import load_or_create
from search.study.record import StudyRecord, TrialRecord, Winner
from search.trial.keys import digest
from search.trial.space import Space, build_space
from search.trial.task import Task, build_task
from search.trial.training import more_epochs

__all__ = ["search_month"]


def search_month(context: MonthContext) -> dict[str, Any]:
    """Search, refit and register the challenger; continues where an earlier call stopped.

    Returns:
        `winner` (of `Winner`, as plain values), `trials` (finished ones), `epoch_equivalents` (of all trials and the
        refit, in epochs of training everything on the images trained on) and `image_passes` (the same in images: how
        often one went through the whole network, forward and backward); or `skipped`: why nothing was searched.

    Raises:
        InterruptedSearchError, StudyStalledError: see `run_study`.
    """
    session, champion, images = context.session, context.champion, context.images
    decided = context.results["depth"]
    if decided["action"] == "none":
        return {"skipped": "no retraining asked for"}
    depth: int | None = decided["depth"]  # None searches from the pre-trained network, as if there were no champion
    folds = context.plan.folds_anew if depth is None else context.plan.folds
    if short := _too_few(folds):
        return {"skipped": short}
    settings = _month_settings(context.settings, full=depth is None)
    start = None if depth is None else _start(context)
    parted = [[fold.train.tolist(), fold.val.tolist()] for fold in folds]
    splits = Splits(folds, np.zeros(0, np.int64), digest([images.index.digest, parted]))
    root = settings.tracking.root
    task = build_task(settings, images, splits, cache=root / "cache", start=start, on_note=session.say)
    if depth is None:
        space = build_space(settings.space, task.net, beta=settings.trainer.fostering.beta)
    else:
        space = _month_space(settings, champion, task.net.deepest, depth)
    made_of = task.identity | {"champion": champion.version, "depth": depth, "row": context.row.id}
    name = f"{session.model_name}-{context.row.month}-{digest(made_of, 4)}"
    journal = root / "studies" / f"{name}.journal"
    study, _ = load_or_create(journal, name, made_of, fresh=False)
    StudyRecord(study).parent = context.run_id  # so that its trials are logged under the month's run
    winner = run_study(task, space, name, made_of, session.console, summary=False).winner
    session.tracker.resume(context.run_id)
    study, _ = load_or_create(journal, name, made_of, fresh=False)
    trials = StudyRecord(study).finished()
    cost, passes = _cost(task, trials, winner)
    return {"winner": asdict(winner), "trials": len(trials), "epoch_equivalents": cost, "image_passes": passes}


def _month_settings(settings: Settings, *, full: bool) -> Settings:
    """Settings of a month's search: the budget of `retrain`, or the ordinary ones for a full search."""
    # The page of the month describes the search; a report of its own would repeat it.
    settings = replace(settings, tracking=replace(settings.tracking, report=False))
    if full:
        return settings
    retrain, search = settings.retrain, settings.search
    # With a handful of trials there is no evidence to steer, and too little to learn from for long.
    search = replace(
        search, trials=retrain.trials, startup_trials=min(search.startup_trials, max(2, retrain.trials // 2)),
        evidence=False, prior="uniform", trust="none",
    )  # fmt: skip
    return replace(settings, search=search, trainer=replace(settings.trainer, epochs=retrain.epochs))


def _month_space(settings: Settings, champion: Champion, blocks: int, depth: int) -> Space:
    """Around the champion: its optimizer, its rate times or divided by `retrain.lr_range`, a depth more or less.

    Trial 0 has the champion's parameters at the depth decided, 0..`blocks`, the deepest; that trains the head alone, or
    what stands from an attention branch on.
    """
    factor, spread = champion.params.lr_factor, settings.retrain.lr_range
    depths = (depth, depth) if depth == blocks else (max(0, depth - 1), min(blocks, depth + 1))
    default = replace(champion.params, freeze_depth=depth)
    searched = settings.space.fostering
    if searched is None or default.fostering_beta not in searched:
        beta = None if searched is None else settings.trainer.fostering.beta
        default = replace(default, fostering_beta=beta)
    optimizers = (champion.params.optimizer,)
    return Space(optimizers, (factor / spread, factor * spread), depths, default, searched)


def _cost(task: Task, trials: list[TrialRecord], winner: Winner) -> tuple[float, float]:
    """Epoch-equivalents and image passes of all trials and of the refit, all folds together."""
    folds = task.splits.folds
    searched = sum(t.epoch_equivalents for t in trials)
    images = float(np.mean([len(task.image_rows(fold.train)) for fold in folds]))
    depths = [trial.freeze_depth for trial in trials if trial.slot in winner.members]
    refit = sum(epoch_equivalents(task.flops, depth, more_epochs(task, depth) or winner.epochs) for depth in depths)
    passes = searched * images + refit * winner.images[0]
    return passes / winner.images[0], passes


def _start(context: MonthContext) -> Path:
    """Folder of the champion's model, its head widened where there are new classes."""
    folder = context.folder / "champion"
    if folder.exists():
        try:
            check_digests(folder, ())
        except InputError as error:
            context.session.say(f"{error}; it is made again.")
            shutil.rmtree(folder)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        model = widened(context.champion.model, context.classes, seed=context.settings.seed)
        save_model(folder, replace(model, trained_on=context.champion.trained_on))
    return folder


def _too_few(folds: tuple[Fold, ...]) -> str | None:
    """Why there is too little to search on, or None."""
    train, val = min(len(fold.train) for fold in folds), min(len(fold.val) for fold in folds)
    return f"{train} training and {val} validation images are too few to retrain on" if train < 2 or not val else None
