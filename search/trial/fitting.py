"""Train a network once, with Lightning: the loop under every trial."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.classifier import Classifier
from lightning_modules.training.datamodule import ActivationData
from lightning_modules.training.fostering import Fostering, target_block
from search.trial.recorder import Recorder
from search.trial.result import TrialParams
from search.trial.space import fosters
from search.trial.task import Task

__all__ = ["Fitted", "first_parts", "fit"]

# Lightning announces the devices it does not use and products of its makers, once for every trial.
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
_HARMLESS = (
    ".*does not have many workers.*",  # batches are tensors already: there is nothing for worker processes to load
    ".*GPU available but not used.*",  # the user said so
    r".*module\(s\) in eval mode at the start.*",  # frozen blocks are, and must stay so
    ".*treespec, LeafSpec.*",  # inside Lightning, about PyTorch
)
_SMALLEST_MICRO_BATCH = 4  # batch-norm over fewer images is noise
_MOST_BYTES = 2e9  # that a batch keeps for its backward pass on a CPU: with all else a worker stays below 4 GB


@dataclass(frozen=True)
class Fitted:
    """What was trained, by which trainer."""

    trainer: pl.Trainer
    model: Classifier
    micro_batch: int  # images that went through the network at a time


def fit(
    task: Task,
    params: TrialParams,
    seed: int,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    epochs: int,
    recorder: Recorder,
    start: BlockNet | None = None,
) -> Fitted:
    """Train once; where memory runs out, once more from the start with batches in twice as many parts.

    On a CPU batches are in parts from the beginning where they would keep more than `_MOST_BYTES` (`first_parts`).

    Args:
        val: rows to validate on after every epoch; without any, batch-norm is re-estimated at the end.
        recorder: gets every epoch and ends the training.
        start: network to go on from, under a schedule of `epochs`, not changed itself; by default `Task.start_net`,
            under the schedule of a whole trial.
    """
    batch_size = task.settings.trainer.batch_size
    parts = recorder.resumed.parts if recorder.resumed else first_parts(task, params.freeze_depth)
    while True:
        try:
            return _fit_in_parts(task, params, seed, train, val, epochs, recorder, parts, start)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU it has no name of its own
            smallest = batch_size // (2 * parts) < _SMALLEST_MICRO_BATCH
            if smallest or not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
        parts *= 2
        recorder.restart()
        if task.device.type == "cuda":
            torch.cuda.empty_cache()


def first_parts(task: Task, freeze_depth: int) -> int:
    """Micro-batches that a batch is split into so that one keeps at most `_MOST_BYTES`; 1 on a GPU."""
    batch_size, parts = task.settings.trainer.batch_size, 1
    if task.device.type == "cuda":
        return parts
    each = task.stored_bytes(freeze_depth)
    while each * batch_size / parts > _MOST_BYTES and batch_size // (2 * parts) >= _SMALLEST_MICRO_BATCH:
        parts *= 2
    return parts


def _fit_in_parts(
    task: Task,
    params: TrialParams,
    seed: int,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    epochs: int,
    recorder: Recorder,
    parts: int,
    start: BlockNet | None,
) -> Fitted:
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
        statistics=task.statistics_rows(train),
        seed=seed,
        parts=parts,
        first_pass=finished,
        watched=task.watched,
    )
    torch.manual_seed(seed)  # dropout draws from the global generator
    net = task.start_net(train, params.freeze_depth) if start is None else deepcopy(start)
    model = Classifier(
        net,
        params.freeze_depth,
        params.optimizer,
        params.lr_factor,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        epochs=settings.epochs if start is None else epochs,
        class_weights=task.class_weights(train),
        label_smoothing=settings.label_smoothing,
        statistics=data.statistics,
        fostering=_fostering(task, params, net),
        judges={name: _judge(task, rows) for name, rows in (("val", val), ("watched", task.watched))},
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
        # Where Lightning counts epochs. Its own `ckpt_path` would need a file with the frozen blocks as well.
        counts = ("ready", "started", "processed", "completed")
        trainer.fit_loop.epoch_progress.current.load_state_dict(dict.fromkeys(counts, finished))
        try:
            trainer.fit(model, datamodule=data)
        except SIGTERMException:  # Lightning's own answer to the signal names no exit code, so it would be 0
            raise SystemExit(143) from None
    if not len(val):
        model.reestimate()
    return Fitted(trainer, model, -(-settings.batch_size // parts))


def _judge(task: Task, rows: NDArray[np.int64]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From the logits of all these rows the logits and labels by image."""

    def judge(logits: Tensor) -> tuple[Tensor, Tensor]:
        judged = task.judged(logits, rows)
        return judged.logits, judged.labels

    return judge


def _fostering(task: Task, params: TrialParams, net: BlockNet) -> Fostering | None:
    """What measures the maps, also for a trial with beta 0 in a search over beta; None where none are asked for."""
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
