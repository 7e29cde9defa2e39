"""Train one trial: a function of (task, parameters, seed) to a curve and a value."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.classifier import Classifier
from search.errors import TrialOvertimeError
from search.trial.checkpoint import (
    TrialCheckpoint,
    load_checkpoint,
    load_network,
    save_checkpoint,
    save_network,
)
from search.trial.files import network_file
from search.trial.fitting import fit
from search.trial.keys import trial_key
from search.trial.machine import this_machine
from search.trial.map_statistics import watched_maps
from search.trial.recorder import STOPPED, Recorder
from search.trial.result import EpochReport, TrialParams, TrialResult, Verdict
from search.trial.task import Task

__all__ = ["keep_network", "kept_network", "more_epochs", "run_trial", "train_final", "train_in_full", "trial_network"]


def run_trial(
    task: Task,
    params: TrialParams,
    seed: int,
    *,
    report: Callable[[EpochReport], Verdict] = lambda _: "train",
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    reported: int = 0,
    on_note: Callable[[str], None] = lambda _: None,
) -> TrialResult:
    """Train on every fold and return the curve.

    A trial whose report is answered with "wait" writes its state to `checkpoint` and returns what it has; one that
    trains on writes it every `executor.checkpoint_seconds`, between two epochs. Run again, it goes on from there and
    ends with the same curve as one that never stopped; epochs of the file that were not reported are
    reported first. Without that file it trains again from its start. It reports nothing twice. A trial that runs its
    full length leaves its network beside `checkpoint`, for `trial_network`; with several folds it
    leaves none.

    Args:
        report: called after every epoch that is new to the caller.
        cancelled: asked before every batch; True raises.
        checkpoint: where the trial is saved; None keeps nothing.
        reported: epochs that an earlier call has reported.
        on_note: called with a line for the user when the trial could not be saved, or what was saved is damaged.

    Raises:
        TrialCancelledError: `cancelled` said so.
        TrialOvertimeError: `search.trial_seconds` were over before the first epoch was.
    """
    started = time.perf_counter()
    limit = task.settings.search.trial_seconds
    of, metric = trial_key(task.own_identity, params, seed), task.settings.search.metric
    saved = load_checkpoint(checkpoint, of=of, on_note=on_note) if checkpoint is not None else None
    before = saved.seconds if saved else 0.0
    curve, stopped = _reported(saved, reported, report)
    micro_batch = -(-task.settings.trainer.batch_size // saved.parts) if saved else task.settings.trainer.batch_size

    def save(trainer: pl.Trainer, model: Classifier) -> None:
        if checkpoint is None:
            return
        try:
            save_checkpoint(checkpoint, trainer, model, curve, of=of, seconds=before + time.perf_counter() - started)
        except OSError as error:
            on_note(f"A trial could not be kept ({error}); it is trained again if it must go on from here.")

    every = task.settings.executor.checkpoint_seconds
    for fold, split in enumerate(task.splits.folds):
        if stopped:
            break
        if saved and fold < saved.fold:
            continue
        resumed = saved if saved and fold == saved.fold else None
        recorder = Recorder(
            metric, fold, curve, report=report, cancelled=cancelled, reported=reported, resumed=resumed,
            deadline=math.inf if limit is None else started + limit - before,
            save=save, save_every=math.inf if every is None else every,
            maps=watched_maps(task, params.freeze_depth, fold, checkpoint),
        )  # fmt: skip
        try:
            fitted = fit(task, params, seed, split.train, split.val, task.settings.trainer.epochs, recorder)
        except TrialOvertimeError:
            if not curve:
                raise TrialOvertimeError(f"no epoch ended within search.trial_seconds={limit or 0:g}") from None
            stopped = "overtime"
            break
        micro_batch = min(micro_batch, fitted.micro_batch)
        stopped = recorder.stopped
        if stopped == "waiting":
            save(fitted.trainer, fitted.model)
        elif not stopped and checkpoint is not None and len(task.splits.folds) == 1:
            with suppress(OSError):  # a full disk: who wants the network trains it again
                save_network(network_file(checkpoint), fitted.model.net, of=of, epoch=curve[-1].epoch)
    metrics = _last_metrics(curve)
    diverged = stopped == "diverged"
    return TrialResult(
        value=0.0 if diverged else metrics[f"val_{metric}"],
        loss=math.inf if diverged else metrics["val_loss"],
        metrics=metrics,
        curve=tuple(curve),
        seconds=before + time.perf_counter() - started,
        epoch_equivalents=task.epochs_worth(params.freeze_depth, len(curve)),
        stopped=stopped,
        micro_batch=micro_batch,
        threads=torch.get_num_threads(),
        machine=this_machine(task.device),
    )


def trial_network(
    task: Task,
    params: TrialParams,
    seed: int,
    epochs: int,
    *,
    fold: int | None = 0,
    checkpoint: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    on_note: Callable[[str], None] = lambda _: None,
) -> BlockNet:
    """The network of a trial after so many epochs, in eval mode, or as it is delivered.

    Args:
        epochs: that it was trained for.
        fold: on whose training images; None is the network refitted on all that are trained on (`Task.rows`), see
            `more_epochs`.
        checkpoint: of the trial; where the network does not lie beside it, it is trained again.
        cancelled: asked before every training batch; True raises `TrialCancelledError`.
        on_note: called with a line for the user where that file is damaged.
    """
    if checkpoint is not None:
        kept = kept_network(task, params, seed, epochs, fold=fold, checkpoint=checkpoint, on_note=on_note)
        if kept is not None:
            return kept
    more = more_epochs(task, params.freeze_depth) if fold is None else None
    if more is None:
        return train_final(task, params, seed, task.rows(fold), epochs, cancelled=cancelled)
    start = trial_network(task, params, seed, epochs, checkpoint=checkpoint, cancelled=cancelled, on_note=on_note)
    slower = replace(params, lr_factor=params.lr_factor * task.settings.search.refit_rate)
    return train_final(task, slower, seed, task.rows(None), more, start=start, cancelled=cancelled)


def kept_network(
    task: Task,
    params: TrialParams,
    seed: int,
    epochs: int,
    *,
    fold: int | None = 0,
    checkpoint: Path,
    on_note: Callable[[str], None] = lambda _: None,
) -> BlockNet | None:
    """The network that a trial or a worker left beside `checkpoint`, as `trial_network` gives it; None without one."""
    if not (file := network_file(checkpoint, fold)).is_file():
        return None
    net, of = deepcopy(task.net), _network_key(task, params, seed, fold)
    found = load_network(file, net, params.freeze_depth, of=of, epoch=epochs - 1, on_note=on_note)
    return net if found else None


def more_epochs(task: Task, freeze_depth: int) -> int | None:
    """Epochs for which a refit goes on from the trial's network; None where it trains as the trial did, anew.

    It does so with several folds: such a trial has several networks, none of which is more its own than another. And
    where every block is frozen: the head alone costs little, and needs its epochs.
    """
    alone = len(task.splits.folds) > 1 or freeze_depth == task.net.num_blocks
    return None if alone else task.settings.search.refit_epochs


def keep_network(
    task: Task,
    params: TrialParams,
    seed: int,
    *,
    fold: int | None,
    checkpoint: Path,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Train a trial's network and leave it where `trial_network` finds it; on a full disk it is not left."""
    epochs = task.settings.trainer.epochs
    net = trial_network(task, params, seed, epochs, fold=fold, checkpoint=checkpoint, cancelled=cancelled)
    with suppress(OSError):  # who wants the network trains it again
        of = _network_key(task, params, seed, fold)
        save_network(network_file(checkpoint, fold), net, of=of, epoch=epochs - 1)


def _network_key(task: Task, params: TrialParams, seed: int, fold: int | None) -> str:
    """What a kept network is the network of."""
    trial, more = trial_key(task.own_identity, params, seed), more_epochs(task, params.freeze_depth)
    if fold is None and more is not None:
        return f"{trial}/all, {more} more epochs at {task.settings.search.refit_rate:g}"
    return trial if fold == 0 else f"{trial}/{'all' if fold is None else fold}"


def _reported(
    saved: TrialCheckpoint | None, reported: int, report: Callable[[EpochReport], Verdict]
) -> tuple[list[EpochReport], str | None]:
    """The curve of a checkpoint, reported as far as the caller does not know it, until a verdict stops the trial."""
    curve: list[EpochReport] = []
    for epoch in saved.curve if saved else ():
        curve.append(epoch)
        verdict = report(epoch) if epoch.step >= reported else "train"
        if verdict != "train":
            return curve, STOPPED[verdict]
    return curve, None


def train_final(
    task: Task,
    params: TrialParams,
    seed: int,
    rows: NDArray[np.int64],
    epochs: int,
    *,
    start: BlockNet | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> BlockNet:
    """Train once on `rows` for `epochs` epochs; the network comes back in eval mode, batch-norm re-estimated.

    Args:
        start: network to go on from; see `fit`.
    """
    recorder = Recorder(task.settings.search.metric, 0, [], cancelled=cancelled)
    return fit(task, params, seed, rows, rows[:0], epochs, recorder, start).model.net.eval()


def train_in_full(
    task: Task, params: TrialParams, seed: int, *, cancelled: Callable[[], bool] = lambda: False
) -> tuple[list[EpochReport], str | None, BlockNet]:
    """Train once on the first fold to the last epoch.

    Returns:
        Its curve, "diverged" or None, and the network of the last epoch, in eval mode.
    """
    curve: list[EpochReport] = []
    recorder = Recorder(task.settings.search.metric, 0, curve, cancelled=cancelled)
    fold = task.splits.folds[0]
    fitted = fit(task, params, seed, fold.train, fold.val, task.settings.trainer.epochs, recorder)
    return curve, recorder.stopped, fitted.model.net.eval()


def _last_metrics(curve: list[EpochReport]) -> dict[str, float]:
    """Of the last epoch that was scored in any fold, the means over the folds that reached it; none of none."""
    scored = [r for r in curve if "val_loss" in r.metrics]  # one that diverged has none
    last = [r.metrics for r in scored if r.epoch == max(r.epoch for r in scored)]
    return {name: float(np.mean([row[name] for row in last])) for name in last[0]} if last else {}
