"""Batches of activations at a cut: slices of tensors, so a step costs no Python loop over images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.activation_cache import ActivationCache

__all__ = ["ActivationBatches", "ActivationData"]

_EVALUATION_BATCH = 128


class ActivationBatches:
    """One pass over images per iteration: (activations (B, C, H, W), labels (B,)).

    In training every pass has another seeded order, and each image shows another of its views: a seeded permutation
    of the plain image and its views, so that after views + 1 passes it has shown each once. Batches are of nearly
    equal size, so none is left with the single image that batch-norm cannot use.

    Args:
        cache: where activations come from.
        cut: the freeze depth.
        rows: (N,) row of each image.
        labels: (N,) its class.
        batch_size: largest number of images in a batch, >= 1.
        views: number of augmented views; None reads the plain image in the order given.
        seed: of order and views.
    """

    def __init__(
        self,
        cache: ActivationCache,
        cut: int,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        batch_size: int,
        views: int | None = None,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        if len(rows) != len(labels):
            raise ValueError(f"rows and labels must be equally many, got {len(rows)} and {len(labels)}")
        self._cache, self._cut = cache, cut
        self._rows, self._labels = rows, torch.from_numpy(labels)
        self._count = -(-len(rows) // batch_size)
        self._views, self._seed = views, seed
        self._pass = 0
        if views is not None:
            rng = np.random.default_rng([seed, 0])
            self._view_order = rng.permuted(np.tile(np.arange(views + 1), (len(rows), 1)), axis=1)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._views is None:
            order, views = np.arange(len(self._rows)), np.zeros(len(self._rows), np.int64)
        else:
            order = np.random.default_rng([self._seed, 1, self._pass]).permutation(len(self._rows))
            views = self._view_order[:, self._pass % (self._views + 1)]
            self._pass += 1
        for chosen in np.array_split(order, self._count):
            activations = self._cache.at(self._cut, self._rows[chosen], views[chosen])
            yield activations, self._labels[torch.from_numpy(chosen)].to(activations.device)


class ActivationData(pl.LightningDataModule):
    """Training and validation batches of one trial on one fold, and the images that re-estimate batch-norm.

    Args:
        cache: where activations come from.
        cut: the freeze depth.
        labels: (rows of the index,) class of every image.
        train: rows to train on.
        val: rows to validate on; may be empty.
        batch_size: of training.
        views: number of augmented views.
        statistics: how many plain training images re-estimate batch-norm.
        seed: of order, views and the choice of those images.
    """

    def __init__(
        self,
        cache: ActivationCache,
        cut: int,
        labels: NDArray[np.int64],
        train: NDArray[np.int64],
        val: NDArray[np.int64],
        *,
        batch_size: int,
        views: int,
        statistics: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._train = ActivationBatches(cache, cut, train, labels[train], batch_size=batch_size, views=views, seed=seed)
        self._val = ActivationBatches(cache, cut, val, labels[val], batch_size=_EVALUATION_BATCH)
        chosen = np.random.default_rng([seed, 2]).permutation(train)[:statistics]
        self._statistics = ActivationBatches(cache, cut, chosen, labels[chosen], batch_size=batch_size)

    def train_dataloader(self) -> ActivationBatches:
        """Training batches, shuffled anew in each pass."""
        return self._train

    def val_dataloader(self) -> ActivationBatches:
        """Validation batches of plain images, in order."""
        return self._val

    def statistics(self) -> Iterable[Tensor]:
        """Activations (B, C, H, W) of the plain training images that re-estimate batch-norm."""
        return (activations for activations, _ in self._statistics)
