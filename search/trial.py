"""Train one trial: a function of (task, parameters, seed) to a curve and a value."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from lightning_modules.blocknet import BlockNet
from lightning_modules.classifier import Classifier
from lightning_modules.cost import epoch_equivalents
from lightning_modules.datamodule import ActivationData
from search.task import Task, statistics_rows
from search.trial_result import EpochReport, TrialCancelledError, TrialParams, TrialResult

__all__ = ["run_trial", "train_final"]

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
    report: Callable[[EpochReport], bool] = lambda _: True,
    cancelled: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Train on every fold and return the curve.

    Args:
        task: data, network and settings.
        params: what to train with.
        seed: of batches and dropout.
        report: called after every epoch; False ends the trial as pruned.
        cancelled: asked before every batch; True raises.

    Raises:
        TrialCancelledError: `cancelled` said so.
    """
    started = time.perf_counter()
    curve: list[EpochReport] = []
    stopped: str | None = None
    micro_batch = task.settings.trainer.batch_size
    for fold, split in enumerate(task.splits.folds):
        recorder = _Recorder(task.settings.search.metric, fold, curve, report, cancelled)
        fitted = _fit(task, params, seed, split.train, split.val, task.settings.trainer.epochs, recorder)
        micro_batch = min(micro_batch, fitted.micro_batch)
        stopped = recorder.stopped
        if stopped:
            break
    best_epoch, metrics = _best_epoch(curve, task.settings.search.metric)
    return TrialResult(
        value=0.0 if stopped == "diverged" else metrics[f"val_{task.settings.search.metric}"],
        best_epoch=best_epoch,
        metrics=metrics,
        curve=tuple(curve),
        seconds=time.perf_counter() - started,
        epoch_equivalents=epoch_equivalents(task.flops, params.freeze_depth, len(curve)),
        stopped=stopped,
        micro_batch=micro_batch,
        threads=torch.get_num_threads(),
    )


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
    recorder = _Recorder(task.settings.search.metric, 0, [], lambda _: True, cancelled)
    return _fit(task, params, seed, rows, rows[:0], epochs, recorder).model.net.eval()


@dataclass(frozen=True)
class _Fitted:
    model: Classifier
    micro_batch: int


def _fit(
    task: Task,
    params: TrialParams,
    seed: int,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    epochs: int,
    recorder: _Recorder,
) -> _Fitted:
    """Train once; where memory runs out, once more from the start with batches in twice as many parts."""
    batch_size, parts = task.settings.trainer.batch_size, 1
    while True:
        try:
            model = _fit_in_parts(task, params, seed, train, val, epochs, recorder, parts)
            return _Fitted(model, -(-batch_size // parts))
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
    recorder: _Recorder,
    parts: int,
) -> Classifier:
    settings = task.settings.trainer
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
        watched=task.watched,
    )
    torch.manual_seed(seed)  # dropout draws from the global generator
    model = Classifier(
        task.start_net(train, params.freeze_depth),
        params.freeze_depth,
        params.optimizer,
        params.lr_factor,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        epochs=task.settings.trainer.epochs,
        class_weights=task.class_weights(train),
        statistics=data.statistics,
    )
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
        trainer.fit(model, datamodule=data)
    if not len(val):
        model.reestimate()
    return model


def _precision(chosen: str, device: torch.device) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of `trainer.precision`."""
    if chosen == "auto":
        chosen = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return "bf16-mixed" if chosen == "bfloat16" else "32-true"


class _Recorder(pl.Callback):
    """Turns Lightning's epochs into reports and the driver's wishes into stops."""

    def __init__(
        self,
        metric: str,
        fold: int,
        curve: list[EpochReport],
        report: Callable[[EpochReport], bool],
        cancelled: Callable[[], bool],
    ) -> None:
        self._metric = f"val_{metric}"
        self._fold = fold
        self._curve = curve
        self._report = report
        self._cancelled = cancelled
        self._started = 0.0
        self._first = self._told = len(curve)
        self.stopped: str | None = None

    def restart(self) -> None:
        """Forget this fold: it is trained again. The driver is not told twice of the same epoch."""
        del self._curve[self._first :]
        self.stopped = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._cancelled():
            raise TrialCancelledError

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not isinstance(pl_module, Classifier):
            raise TypeError(f"a trial trains a Classifier, got {type(pl_module).__name__}")
        epoch = len(pl_module.epoch_metrics) - 1
        metrics = dict(pl_module.epoch_metrics[-1])
        if pl_module.diverged:
            self.stopped = "diverged"
        earlier = [r.metrics[self._metric] for r in self._curve if r.epoch == epoch]
        value = 0.0 if self.stopped else float(np.mean([*earlier, metrics[self._metric]]))
        report = EpochReport(
            step=len(self._curve),
            fold=self._fold,
            epoch=epoch,
            value=value,
            metrics=metrics,
            seconds=time.perf_counter() - self._started,
        )
        self._curve.append(report)
        go_on = self._report(report) if report.step >= self._told else True
        self._told = max(self._told, report.step + 1)
        if not go_on and not self.stopped:
            self.stopped = "pruned"
        if self.stopped:
            trainer.should_stop = True


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
