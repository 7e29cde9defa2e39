"""The shorter search of a month: from the champion's weights and best parameters, around the depth decided."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from lightning_modules.images.splits import Fold, Splits
from lightning_modules.images.store import ImageSet
from lightning_modules.networks.freezing import epoch_equivalents
from lightning_modules.networks.model_file import save_model
from search.pipeline import run_study
from search.retrain.champion import Champion, widened
from search.retrain.ledger_rows import MonthRow
from search.retrain.session import Session
from search.settings.schema import Settings
from search.study.record import StudyRecord, TrialRecord, Winner, load_or_create
from search.trial.preparation import identity
from search.trial.result import TrialParams
from search.trial.space import Space, build_space
from search.trial.task import Task, build_task

__all__ = ["Found", "month_settings", "month_space", "search_month", "too_few"]


@dataclass(frozen=True)
class Found:
    """What the search of a month gave.

    Attributes:
        winner: the challenger, registered.
        trials: finished ones.
        epoch_equivalents: of all trials and the refit, in epochs of training everything on the images trained on.
        image_passes: the same in images: how often one went through the whole network, forward and backward.
    """

    winner: Winner
    trials: int
    epoch_equivalents: float
    image_passes: float

    @property
    def params(self) -> TrialParams:
        """Parameters of the challenger."""
        return TrialParams(**self.winner.params)


def month_settings(settings: Settings, *, full: bool) -> Settings:
    """Settings of a month's search: the budget of `retrain`, or the ordinary ones for a full search."""
    # The page of the month tells of the search; a report of its own would repeat it.
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


def month_space(settings: Settings, champion: Champion, blocks: int, depth: int) -> Space:
    """Around the champion: its optimizer, its rate times or divided by `retrain.lr_range`, a depth more or less.

    Args:
        settings: all settings.
        champion: trial 0 has its parameters, at the depth decided.
        blocks: L.
        depth: decided, 0..L; L trains the head alone.
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


def search_month(
    session: Session,
    row: MonthRow,
    run_id: str,
    champion: Champion,
    images: ImageSet,
    folds: tuple[Fold, ...],
    depth: int | None,
) -> Found:
    """Search, refit and register the challenger; continues where an earlier call stopped.

    Args:
        session: shared things.
        row: the month's.
        run_id: of the month; trials are its children.
        champion: to start from.
        images: known in the month.
        folds: to train and validate on.
        depth: freeze depth to retrain at; None searches from the pre-trained network, as if there were no champion.

    Raises:
        InterruptedSearchError, StudyStalledError: see `run_study`.
    """
    full = depth is None
    settings = month_settings(session.settings, full=full)
    start = None if full else _start(session, row, champion, images.index.classes)
    nothing = np.zeros(0, np.int64)
    parted = (part.tobytes() for fold in folds for part in (fold.train, fold.val))
    splits = Splits(folds, nothing, _digest(images.index.digest, *parted))
    root, tell = settings.tracking.root, partial(session.console.print, markup=False)
    task = build_task(settings, images, splits, cache=root / "cache", start=start, on_note=tell)
    if depth is None:
        space = build_space(settings.space, task.net, beta=settings.trainer.fostering.beta)
    else:
        space = month_space(settings, champion, task.net.num_blocks, depth)
    made_of = identity(settings, task) | {"champion": champion.version, "depth": depth, "row": row.id}
    name = f"{session.model_name}-{row.month}-{_digest(json.dumps(made_of, sort_keys=True))[:8]}"
    journal = root / "studies" / f"{name}.journal"
    study, _ = load_or_create(journal, name, made_of, fresh=False)
    StudyRecord(study).parent = run_id  # so that its trials are logged under the month's run
    winner = run_study(task, space, name, made_of, session.console, summary=False).winner
    session.tracker.resume(run_id)
    study, _ = load_or_create(journal, name, made_of, fresh=False)
    trials = StudyRecord(study).finished()
    cost, passes = _cost(task, trials, winner)
    return Found(winner, len(trials), cost, passes)


def _cost(task: Task, trials: list[TrialRecord], winner: Winner) -> tuple[float, float]:
    """Epoch-equivalents and image passes of all trials and of the refit, all folds together."""
    folds = task.splits.folds
    searched = sum(t.epoch_equivalents for t in trials)
    images = float(np.mean([len(fold.train) for fold in folds]))
    refit = epoch_equivalents(task.flops, TrialParams(**winner.params).freeze_depth, winner.epochs)
    passes = searched * images + refit * winner.images[0]
    return passes / winner.images[0], passes


def _start(session: Session, row: MonthRow, champion: Champion, classes: tuple[str, ...]) -> Path:
    """Folder of the champion's model, its head widened where there are new classes."""
    folder = session.folder(row) / "start"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(folder, widened(champion.model, classes, seed=session.settings.seed))
    return folder


def too_few(folds: tuple[Fold, ...]) -> str | None:
    """Why there is too little to search on, or None."""
    train, val = min(len(fold.train) for fold in folds), min(len(fold.val) for fold in folds)
    return f"{train} training and {val} validation images are too few to retrain on" if train < 2 or not val else None


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()
