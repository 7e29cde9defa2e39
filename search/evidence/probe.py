"""The probe fine-tuning and the one shared pass that the evidence is read from.

The probe fine-tuning trains everything (freeze depth 0) for about 600 image-steps, or half a trial where that is less,
on a class-balanced part of the first fold's training images. The scorers then read a class-balanced probe subset, half
training and half validation images, plain. "Before" is the network that a trial at freeze depth L starts from, "after"
the fine-tuned one: its batch-norm statistics are those of the task, so what re-estimating them changes counts as
change by training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from explain.evidence import Cost, Material, gather
from lightning_modules.networks.blocknet import BlockNet
from search.trial.fitting import first_parts
from search.trial.result import TrialParams
from search.trial.task import Task
from search.trial.training import train_final

__all__ = ["balanced_rows", "collect_material", "probe_fine_tuning", "probe_rows", "tuned_rows"]

_IMAGE_STEPS = 600  # of the probe fine-tuning at most; with few images half a trial's, or it would cost as much as one
_TUNED_ROWS = 256
_PROBE_HALF = 24
_MOST_CLASSES = 64  # with at least one probe image; of more classes so many are drawn
_SHUFFLES = 1
_LABEL_PERMUTATIONS = 2
_BATCH = 32  # images that the shared pass shows at a time; fewer of large ones


def balanced_rows(
    rows: NDArray[np.int64], labels: NDArray[np.int64], most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of which every class has about equally many: `most` in all, but at least one a class; sorted.

    Args:
        most: how many rows in all; a class with too few images gives what it has.
    """
    found = np.unique(labels)
    each = max(1, most // max(1, len(found)))
    chosen = [rng.permutation(rows[labels == label])[:each] for label in found]
    return np.sort(np.concatenate([rows[:0], *chosen]))


def probe_rows(task: Task) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation rows of the probe subset: the same classes in both, of fold 0."""
    fold, labels = task.splits.folds[0], task.index.labels
    rng = np.random.default_rng([task.settings.seed, 5])
    tuned = tuned_rows(task)
    both = np.intersect1d(labels[tuned], labels[fold.val])
    if len(both) > _MOST_CLASSES:
        both = rng.permutation(both)[:_MOST_CLASSES]
    halves = []
    for rows in (tuned, fold.val):
        rows = rows[np.isin(labels[rows], both)]
        halves.append(balanced_rows(rows, labels[rows], _PROBE_HALF, rng))
    return halves[0], halves[1]


def tuned_rows(task: Task) -> NDArray[np.int64]:
    """The training rows of the probe fine-tuning; all of fold 0's where they are few, so that they share its head."""
    rows, labels = task.splits.folds[0].train, task.index.labels
    if len(rows) <= _TUNED_ROWS:
        return rows
    return balanced_rows(rows, labels[rows], _TUNED_ROWS, np.random.default_rng([task.settings.seed, 4]))


def probe_fine_tuning(task: Task, number: int, cancelled: Callable[[], bool] = lambda: False) -> tuple[BlockNet, Cost]:
    """Everything trained for about 600 image-steps or half a trial, whichever is less, and what it cost.

    Args:
        number: 0, or 1 for the one from another seed.
        cancelled: asked before every batch; True raises.
    """
    rows = tuned_rows(task)
    epochs = max(2, min(math.ceil(_IMAGE_STEPS / len(rows)), task.settings.trainer.epochs // 2))
    seed = int(np.random.SeedSequence([task.settings.seed, 6, number]).generate_state(1)[0]) >> 1
    started = time.perf_counter()
    # Also where trials foster: the scorers were calibrated on maps that nothing had sharpened.
    net = train_final(task, TrialParams("momentum", 1.0, 0, 0.0), seed, rows, epochs, cancelled=cancelled)
    steps = len(rows) * epochs
    return net, Cost(time.perf_counter() - started, steps + len(task.statistics_rows(rows)), steps)


def collect_material(
    task: Task,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    *,
    again: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Material:
    """The shared pass over the probe images, after the probe fine-tuning.

    Args:
        training: probe rows that heads and fine-tuning saw.
        validation: probe rows that they did not see.
        again: whether to fine-tune a second time.
        cancelled: asked before every batch of a fine-tuning; True raises.
    """
    before = task.start_net(task.splits.folds[0].train, task.net.deepest)
    after, cost = probe_fine_tuning(task, 0, cancelled)
    other = probe_fine_tuning(task, 1, cancelled)[0] if again else None
    rows = np.concatenate([training, validation])
    return gather(
        before,
        [f"blocks.{name}" for name in task.net.block_names],
        task.inputs(rows, np.zeros_like(rows)),
        torch.from_numpy(task.index.labels[rows]),
        torch.arange(len(rows)) < len(training),
        after=after,
        again=other,
        fine_tuning=cost,
        shuffles=_SHUFFLES,
        label_permutations=_LABEL_PERMUTATIONS,
        batch_size=max(4, _BATCH // first_parts(task, 0)),
        seed=task.settings.seed,
    )
