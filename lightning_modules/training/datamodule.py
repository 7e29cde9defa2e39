"""Batches of what leaves the frozen blocks: slices of tensors, so a step costs no Python loop over images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.training.activation_cache import ActivationCache

__all__ = ["ActivationBatches", "ActivationData", "view_order"]

_EVALUATION_BATCH = 128


def view_order(rows: int, views: int, seed: int) -> NDArray[np.int64]:
    """(rows, views + 1): for each image a seeded permutation of the plain image, 0, and its views.

    One order for all trials: what the first pass of one trial has stored is what the first pass of the next one reads.
    """
    order = np.tile(np.arange(views + 1), (rows, 1))
    shuffled: NDArray[np.int64] = np.random.default_rng([seed, 0]).permuted(order, axis=1)
    return shuffled


class ActivationBatches:
    """One pass over images per iteration: (activations (B, C, H, W), labels (B,), share).

    The share is by how much the loss of a micro-batch counts in its batch's gradient: images x parts / images of the
    batch, 1 where batches are not split.

    In training every pass has another seeded order, and each image shows another of its views as `view_order` says, so
    that after views + 1 passes it has shown each once. Batches are of nearly equal size, so none is left with the
    single image that batch-norm cannot use.

    Args:
        cache: where activations come from.
        freeze_depth: whose activations are read.
        rows: (N,) row of each image.
        labels: (N,) its class.
        batch_size: largest number of images in a batch, >= 1.
        view_order: (rows of the index, views + 1) view that each image shows in each pass (see `view_order`); None
            reads the plain image in the order given.
        parts: micro-batches a batch is split into.
        first_pass: number of the first pass, > 0 for training that goes on.
    """

    def __init__(
        self,
        cache: ActivationCache,
        freeze_depth: int,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        batch_size: int,
        view_order: NDArray[np.int64] | None = None,
        seed: int = 0,
        parts: int = 1,
        first_pass: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        if len(rows) != len(labels):
            raise ValueError(f"rows and labels must be equally many, got {len(rows)} and {len(labels)}")
        self._cache, self._freeze_depth = cache, freeze_depth
        self._rows, self._labels = rows, torch.from_numpy(labels)
        self._count = -(-len(rows) // batch_size)
        self._seed, self._parts = seed, parts
        self._view_order = None if view_order is None else view_order[rows]
        self._pass = first_pass

    def __len__(self) -> int:
        return self._count * self._parts

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, float]]:
        if self._view_order is None:
            order, views = np.arange(len(self._rows)), np.zeros(len(self._rows), np.int64)
        else:
            order = np.random.default_rng([self._seed, 1, self._pass]).permutation(len(self._rows))
            views = self._view_order[:, self._pass % self._view_order.shape[1]]
            self._pass += 1
        for batch in np.array_split(order, self._count):
            for chosen in np.array_split(batch, self._parts):
                activations = self._cache.at(self._freeze_depth, self._rows[chosen], views[chosen])
                labels = self._labels[torch.from_numpy(chosen)].to(activations.device)
                yield activations, labels, len(chosen) * self._parts / len(batch)


class ActivationData(pl.LightningDataModule):
    """Training and validation batches of one trial on one fold, and the images that re-estimate batch-norm.

    What is not named here is as in `ActivationBatches`.

    Args:
        labels: (rows of the index,) class of every image.
        val: rows to validate on; may be empty.
        statistics: rows of the training images whose plain view re-estimates batch-norm.
        first_pass: epochs of this training that are over already.
        watched: rows that are scored beside the validation rows; may be empty.
    """

    def __init__(
        self,
        cache: ActivationCache,
        freeze_depth: int,
        labels: NDArray[np.int64],
        train: NDArray[np.int64],
        val: NDArray[np.int64],
        *,
        batch_size: int,
        view_order: NDArray[np.int64],
        statistics: NDArray[np.int64],
        seed: int,
        parts: int = 1,
        first_pass: int = 0,
        watched: NDArray[np.int64] = np.zeros(0, np.int64),  # noqa: B008 - never written to
    ) -> None:
        super().__init__()
        self._train = ActivationBatches(
            cache, freeze_depth, train, labels[train],
            batch_size=batch_size, view_order=view_order, seed=seed, parts=parts, first_pass=first_pass,
        )  # fmt: skip
        self._scored = [
            ActivationBatches(cache, freeze_depth, rows, labels[rows], batch_size=_EVALUATION_BATCH)
            for rows in (val, watched)
            if len(rows)
        ]
        self._statistics = ActivationBatches(cache, freeze_depth, statistics, labels[statistics], batch_size=batch_size)

    def train_dataloader(self) -> ActivationBatches:
        """Training batches, shuffled anew in each pass."""
        return self._train

    def val_dataloader(self) -> list[ActivationBatches]:
        """Batches of plain images, in order: validation, then what is watched."""
        return self._scored

    def statistics(self) -> Iterable[Tensor]:
        """Activations (B, C, H, W) of the plain training images that re-estimate batch-norm."""
        return (activations for activations, *_ in self._statistics)
