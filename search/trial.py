"""Train one trial: a function of (task, parameters, seed) to a curve and a value."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.loops.progress import _ProcessedTracker

from lightning_modules.blocknet import BlockNet
from lightning_modules.classifier import Classifier
from lightning_modules.cost import epoch_equivalents
from lightning_modules.datamodule import ActivationData
from lightning_modules.fostering import Fostering, target_block
from search.checkpoint import TrialCheckpoint, load_checkpoint, save_checkpoint
from search.recorder import STOPPED, Recorder
from search.space import fosters
from search.task import Task, statistics_rows
from search.trial_result import EpochReport, TrialOvertimeError, TrialParams, TrialResult, Verdict

__all__ = ["run_trial", "train_final", "train_in_full"]

# Lightning announces the devices it does not use and products of its makers, once for every trial.
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
_HARMLESS = (
    ".*does not have many workers.*",  # batches are tensors already: there is nothing for worker processes to load
    ".*GPU available but not used.*",  # the user said so
    r".*module\(s\) in eval mode at the start.*",  # frozen blocks are, and must stay so
    ".*treespec, LeafSpec.*",  # inside Lightning, about PyTorch
)
_SMALLEST_MICRO_BATCH = 4  # batch-norm over fewer images is noise


def run_trial(
    task: Task,
    params: TrialParams,
    seed: int,
    *,
    report: Callable[[EpochReport], Verdict] = lambda _: "train",
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    told: int = 0,
    on_note: Callable[[str], None] = lambda _: None,
) -> TrialResult:
    """Train on every fold and return the curve.

    A trial whose report is answered with "wait" writes its state to `checkpoint` and returns what it has; one that
    trains on writes it every `executor.checkpoint_seconds`, between two epochs. Run again, it goes on from there and
    ends with the same curve as one that never stopped; epochs of the file that the caller has not been told of are
    reported first. Without that file it trains again from its start. It reports nothing twice.

    Args:
        task: data, network and settings.
        params: what to train with.
        seed: of batches and dropout.
        report: called after every epoch that is new to the caller.
        cancelled: asked before every batch; True raises.
        checkpoint: where the trial is kept; None keeps nothing.
        told: reports that an earlier call has made.
        on_note: called with a line for the user when the trial could not be kept.

    Raises:
        TrialCancelledError: `cancelled` said so.
        TrialOvertimeError: `search.trial_seconds` were over before the first epoch was.
    """
    started = time.perf_counter()
    limit = task.settings.search.trial_seconds
    of = f"{params} seed {seed}"
    kept = load_checkpoint(checkpoint, of=of) if checkpoint is not None else None
    before = kept.seconds if kept else 0.0
    curve, stopped = _reported(kept, told, report)
    micro_batch = -(-task.settings.trainer.batch_size // kept.parts) if kept else task.settings.trainer.batch_size

    def keep(trainer: pl.Trainer, model: Classifier) -> None:
        if checkpoint is None:
            return
        try:
            save_checkpoint(
                checkpoint, trainer, model, curve, of=of, seconds=before + time.perf_counter() - started
            )  # fmt: skip
        except OSError as error:
            on_note(f"A trial could not be kept ({error}); it is trained again if it must go on from here.")

    every = task.settings.executor.checkpoint_seconds
    for fold, split in enumerate(task.splits.folds):
        if stopped:
            break
        if kept and fold < kept.fold:
            continue
        resumed = kept if kept and fold == kept.fold else None
        recorder = Recorder(
            task.settings.search.metric, fold, curve, report, cancelled, told=told, resumed=resumed,
            deadline=math.inf if limit is None else started + limit - before,
            keep=keep, keep_every=math.inf if every is None else every,
        )  # fmt: skip
        try:
            fitted = _fit(task, params, seed, split.train, split.val, task.settings.trainer.epochs, recorder)
        except TrialOvertimeError:
            if not curve:
                raise TrialOvertimeError(f"no epoch ended within search.trial_seconds={limit or 0:g}") from None
            stopped = "overtime"
            break
        micro_batch = min(micro_batch, fitted.micro_batch)
        stopped = recorder.stopped
        if stopped == "waiting":
            keep(fitted.trainer, fitted.model)
    best_epoch, metrics = _best_epoch(curve, task.settings.search.metric)
    return TrialResult(
        value=0.0 if stopped == "diverged" else metrics[f"val_{task.settings.search.metric}"],
        best_epoch=best_epoch,
        metrics=metrics,
        curve=tuple(curve),
        seconds=before + time.perf_counter() - started,
        epoch_equivalents=epoch_equivalents(task.flops, params.freeze_depth, len(curve)),
        stopped=stopped,
        micro_batch=micro_batch,
        threads=torch.get_num_threads(),
    )


def _reported(
    kept: TrialCheckpoint | None, told: int, report: Callable[[EpochReport], Verdict]
) -> tuple[list[EpochReport], str | None]:
    """The curve of a checkpoint, reported as far as the caller does not know it, until a verdict stops the trial."""
    curve: list[EpochReport] = []
    for epoch in kept.curve if kept else ():
        curve.append(epoch)
        verdict = report(epoch) if epoch.step >= told else "train"
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
    cancelled: Callable[[], bool] = lambda: False,
) -> BlockNet:
    """Train once on `rows` for `epochs` epochs; the network comes back in eval mode, batch-norm re-estimated."""
    recorder = Recorder(task.settings.search.metric, 0, [], lambda _: "train", cancelled)
    return _fit(task, params, seed, rows, rows[:0], epochs, recorder).model.net.eval()


def train_in_full(
    task: Task, params: TrialParams, seed: int, *, cancelled: Callable[[], bool] = lambda: False
) -> tuple[list[EpochReport], str | None, BlockNet]:
    """Train once on the first fold to the last epoch.

    Returns:
        Its curve, "diverged" or None, and the network of the last epoch, in eval mode.
    """
    curve: list[EpochReport] = []
    recorder = Recorder(task.settings.search.metric, 0, curve, lambda _: "train", cancelled)
    fold = task.splits.folds[0]
    fitted = _fit(task, params, seed, fold.train, fold.val, task.settings.trainer.epochs, recorder)
    return curve, recorder.stopped, fitted.model.net.eval()


@dataclass(frozen=True)
class _Fitted:
    trainer: pl.Trainer
    model: Classifier
    micro_batch: int


def _fit(
    task: Task,
    params: TrialParams,
    seed: int,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    epochs: int,
    recorder: Recorder,
) -> _Fitted:
    """Train once; where memory runs out, once more from the start with batches in twice as many parts."""
    batch_size, parts = task.settings.trainer.batch_size, recorder.resumed.parts if recorder.resumed else 1
    while True:
        try:
            trainer, model = _fit_in_parts(task, params, seed, train, val, epochs, recorder, parts)
            return _Fitted(trainer, model, -(-batch_size // parts))
        except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU it has no name of its own
            smallest = batch_size // (2 * parts) < _SMALLEST_MICRO_BATCH
            if smallest or not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
        parts *= 2
        recorder.restart()
        if task.device.type == "cuda":
            torch.cuda.empty_cache()


def _fit_in_parts(
    task: Task,
    params: TrialParams,
    seed: int,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    epochs: int,
    recorder: Recorder,
    parts: int,
) -> tuple[pl.Trainer, Classifier]:
    settings = task.settings.trainer
    resumed = recorder.resumed
    finished = sum(r.fold == resumed.fold for r in resumed.curve) if resumed else 0  # epochs of this fold
    data = ActivationData(
        task.cache,
        params.freeze_depth,
        task.index.labels,
        train,
        val,
        batch_size=settings.batch_size,
        view_order=task.view_order,
        statistics=statistics_rows(task.settings, train),
        seed=seed,
        parts=parts,
        first_pass=finished,
        watched=task.watched,
    )
    torch.manual_seed(seed)  # dropout draws from the global generator
    net = task.start_net(train, params.freeze_depth)
    model = Classifier(
        net,
        params.freeze_depth,
        params.optimizer,
        params.lr_factor,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        epochs=task.settings.trainer.epochs,
        class_weights=task.class_weights(train),
        statistics=data.statistics,
        fostering=_fostering(task, params, net),
    )
    if resumed is not None:
        resumed.restore_model(model)
    model.train()  # Lightning keeps the mode it finds
    with warnings.catch_warnings():
        for harmless in _HARMLESS:
            warnings.filterwarnings("ignore", message=harmless)
        trainer = pl.Trainer(
            accelerator="gpu" if task.device.type == "cuda" else "cpu",
            devices=1,
            precision=_precision(settings.precision, task.device),
            max_epochs=epochs,
            accumulate_grad_batches=parts,
            limit_val_batches=1.0 if len(val) else 0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
            callbacks=[recorder],
        )
        trainer.fit_loop.epoch_progress.current = _ProcessedTracker(*[finished] * 4)  # where Lightning counts epochs
        trainer.fit(model, datamodule=data)
    if not len(val):
        model.reestimate()
    return trainer, model


def _fostering(task: Task, params: TrialParams, net: BlockNet) -> Fostering | None:
    """What looks at the maps, also of a trial with beta 0 in a search over beta; None where nobody asks for them."""
    if not fosters(task.settings):
        return None
    settings = task.settings.trainer.fostering
    beta = settings.beta if params.fostering_beta is None else params.fostering_beta
    return Fostering(net, target_block(net, settings.block), beta)


def _precision(chosen: str, device: torch.device) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of `trainer.precision`."""
    if chosen == "auto":
        chosen = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return "bf16-mixed" if chosen == "bfloat16" else "32-true"


def _best_epoch(curve: list[EpochReport], metric: str) -> tuple[int, dict[str, float]]:
    """The epoch with the best mean score over the folds that reached it, and its mean metrics."""
    most = max((sum(r.epoch == e for r in curve) for e in {r.epoch for r in curve}), default=0)
    means: dict[int, dict[str, float]] = {}
    for epoch in sorted({r.epoch for r in curve}):
        rows = [r.metrics for r in curve if r.epoch == epoch and f"val_{metric}" in r.metrics]
        if rows and (len(rows) == most or not means):
            means[epoch] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    if not means:
        return 0, {f"val_{metric}": 0.0}
    best = max(means, key=lambda e: (means[e][f"val_{metric}"], -e))
    return best, means[best]
