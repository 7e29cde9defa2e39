"""What all trials of a study share: images, splits, the pre-trained network, its activations and warm heads."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.images.by_image import by_image
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.splits import Splits
from lightning_modules.images.store import ImageSet
from lightning_modules.images.tile_rows import tile_rows
from lightning_modules.images.views import Views, apply_views
from lightning_modules.networks import backbones
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.committee import alone
from lightning_modules.networks.freezing import block_flops, epoch_equivalents, stored_bytes
from lightning_modules.networks.model_file import load_model
from lightning_modules.training.activation_cache import ActivationCache
from lightning_modules.training.datamodule import ActivationBatches, view_order
from lightning_modules.training.warm_start import HeadStore, fit_head, shown_at_once, warm_depth
from search.settings.schema import Settings
from search.trial.keys import activation_key, head_key, study_identity
from search.trial.resolution import resolved
from search.trial.result import TrialParams

__all__ = ["Judged", "Task", "build_task", "choose_device", "statistics_rows"]

_WARMUP_BATCH = 128
_WARMUP_IMAGES = 4096  # the probe holds the features of so many at most, so that memory does not grow with the data
_WARMUP_PASSES = 2  # the plain image or a view, and another one: five passes gave no better head
_WARMUP_STATISTICS = 2  # counts the ways in which the images that re-estimate batch-norm have been drawn


def choose_device(accelerator: str) -> torch.device:
    """The device of `trainer.accelerator`.

    Raises:
        InputError: a GPU was asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("trainer.accelerator=gpu needs a CUDA device and none was found; accepted here: auto, cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, eq=False)
class Judged:
    """Answers by image.

    Attributes:
        logits: (M, classes), whose softmax are the image's probabilities.
        labels: (M,) int64, the images' classes, on the device of the logits.
        rows: (M,) int64, of the task's index: the image, or the tile of it that decided.
    """

    logits: Tensor
    labels: Tensor
    rows: NDArray[np.int64]


@dataclass(eq=False)
class Task:
    """One data set, one pre-trained network, one way to split and to train.

    A *row* is what the network is shown at once: an image, or a tile of one (`data.tile`). What is counted or judged by
    image goes through `judged`, `image_index` and `image_rows`.

    Attributes:
        images: one row each, as are the splits.
        net: the pre-trained network; trials train copies of it.
        cache: activations at every freeze depth.
        flops: forward operations by block, head last.
        inputs: (rows, views) -> images (B, 3, H, W) in [0, 1]; view 0 is the plain image.
        view_order: (rows, views + 1) view that each image shows in each pass over the training images.
        watched: rows that every epoch of a trial is scored on beside its validation rows. Empty in a search, which
            reads test images once; benchmarks that tabulate whole curves name their test images here.
        start: folder of the trained model that trials start from, head included; None is `model.weights`.
        network: its name where the study chooses among several networks, each of which has a task; else None.
        unit: operations by block of the first network, whose epochs costs are counted in; None where it is this one.
        others: the task of the first network only: makes those of the others, by name.
        shown: what `search.trial.map_statistics` computes once for all trials of this process.
    """

    settings: Settings
    images: ImageSet
    splits: Splits
    net: BlockNet
    cache: ActivationCache
    flops: tuple[int, ...]
    device: torch.device
    inputs: Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor]
    view_order: NDArray[np.int64]
    heads: HeadStore
    watched: NDArray[np.int64]
    start: Path | None = None
    network: str | None = None
    unit: tuple[int, ...] | None = None
    others: Callable[[str], Task] | None = None
    shown: dict[Hashable, Any] = field(default_factory=dict)
    _made: dict[str, Task] = field(default_factory=dict)
    _stored_bytes: dict[int, int] = field(default_factory=dict)

    def of(self, network: str | None) -> Task:
        """The task of this network of the study, made when it is first asked for; asked of the first network's task.

        Args:
            network: of a trial's parameters; None is the only one.

        Raises:
            InputError: weights that cannot be had or do not fit.
        """
        if network in (None, self.network):
            return self
        if network not in self._made:
            if self.others is None:
                raise ValueError(f"{network} is none of the study's networks")
            self._made[network] = self.others(network)
        return self._made[network]

    @property
    def all(self) -> tuple[Task, ...]:
        """The task of each network of the study, asked of the first one's."""
        return (self, *(self.of(name) for name in self.settings.model.names[1:]))

    @property
    def index(self) -> ImageIndex:
        """The images' labels, months and groups."""
        return self.images.index

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""
        return self.images.index.classes

    @property
    def image_index(self) -> ImageIndex:
        """The images themselves, also where the rows are tiles."""
        return self.index if self.index.tiles is None else self.index.tiles.images

    def images_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) row of `image_index` of each row: the image that it is, or is a tile of."""
        return rows if self.index.tiles is None else self.index.tiles.image[rows]

    def image_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ascending rows of `image_index`: the images that these rows are, or are tiles of."""
        return np.unique(self.images_of(rows))

    def trainable(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows whose label is sure enough to train on: tiles that show a bit of a defect are left out."""
        return rows if self.index.tiles is None else rows[self.index.tiles.trainable[rows]]

    def judged(self, logits: Tensor, rows: NDArray[np.int64]) -> Judged:
        """The answers by image from those (N, classes) on all rows of some images."""
        tiles = self.index.tiles
        if tiles is None:
            return Judged(logits, torch.from_numpy(self.index.labels[rows]).to(logits.device), rows)
        found = by_image(logits, tiles.image[rows], tiles.normal)
        labels = torch.from_numpy(tiles.images.labels[found.images]).to(logits.device)
        return Judged(found.logits, labels, rows[found.deciding])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """See `study_identity`; of a study of several networks it is asked of the first one's task."""
        return study_identity(self.settings, self.index, self.splits, *(task.net for task in self.all))

    @cached_property
    def own_identity(self) -> dict[str, Any]:
        """What a trial's files are known by: as `identity`, of this network alone, so that no other need be built."""
        if self.network is None:
            return self.identity
        return study_identity(self.settings, self.index, self.splits, self.net)

    def epochs_worth(self, freeze_depth: int, epochs: float) -> float:
        """What so many epochs at this freeze depth cost, in epochs of training everything of the first network."""
        return epoch_equivalents(self.flops, freeze_depth, epochs, unit=self.unit)

    def epoch_cost(self, params: TrialParams) -> float:
        """What an epoch of a trial costs, in epochs of training everything of the first network; asked of its task."""
        return self.of(params.network).epochs_worth(params.freeze_depth, 1)

    def stored_bytes(self, freeze_depth: int) -> int:
        """Bytes that one image's forward pass behind this freeze depth keeps for the backward pass, measured once."""
        if freeze_depth not in self._stored_bytes:
            self._stored_bytes[freeze_depth] = stored_bytes(self.net, self.settings.data.pixels, freeze_depth)
        return self._stored_bytes[freeze_depth]

    def class_weights(self, rows: NDArray[np.int64]) -> Tensor | None:
        """(classes,) weights N / (classes * N_c) of the loss if they are asked for, else None."""
        if self.settings.trainer.class_weights == "none":
            return None
        counts = np.bincount(self.index.labels[rows], minlength=len(self.classes))
        return torch.tensor(len(rows) / (len(self.classes) * np.maximum(counts, 1)), dtype=torch.float32)

    @property
    def images_at_once(self) -> int:
        """How many images a network is shown at a time outside training (`shown_at_once`)."""
        height, width = self.settings.data.pixels
        return shown_at_once(3 * height * width)

    @property
    def batches(self) -> int:
        """Training steps in an epoch of the first fold."""
        return -(-len(self.splits.folds[0].train) // self.settings.trainer.batch_size)

    def rows(self, fold: int | None) -> NDArray[np.int64]:
        """Rows that a network is trained on: the training images of a fold; None takes all that may be trained on."""
        return self.trainable(self.searched_rows) if fold is None else self.splits.folds[fold].train

    @property
    def searched_rows(self) -> NDArray[np.int64]:
        """Rows of the training and validation images of all folds, ascending."""
        return np.unique(np.concatenate([part for fold in self.splits.folds for part in (fold.train, fold.val)]))

    def statistics_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows among these training rows whose plain images re-estimate batch-norm.

        For a fold those that `statistics_rows` draws. For training and validation images together the same, and
        validation images in their share: the activations of others are not stored, and drawing from all would store
        every shard.
        """
        fold = self.splits.folds[0]
        trained = np.isin(rows, fold.train)
        if len(self.splits.folds) > 1 or trained.all():
            return statistics_rows(self.settings, rows)
        chosen = statistics_rows(self.settings, fold.train)
        others = np.random.default_rng([self.settings.seed, 2]).permutation(rows[~trained])
        both = np.concatenate([chosen, others[: round(len(chosen) * len(others) / max(int(trained.sum()), 1))]])
        return statistics_rows(self.settings, both)

    def start_net(self, rows: NDArray[np.int64], freeze_depth: int) -> BlockNet:
        """A copy of the network; a pre-trained one's head is warmed up on the images `rows` for this freeze depth.

        The head of a model that was trained before (`start`) is left as it is.
        """
        net = deepcopy(self.net)
        if self.net.pretrained and self.settings.trainer.warmup and self.start is None:
            net.head.load_state_dict(self.warm_head(rows, freeze_depth))
        return net

    def warm_head(self, rows: NDArray[np.int64], freeze_depth: int) -> dict[str, Tensor]:
        """State of the head that trials on `rows` at this freeze depth start from (`warm_start`), fitted once."""
        freeze_depth = warm_depth(self.net, freeze_depth)
        fitting = (_WARMUP_BATCH, _WARMUP_IMAGES, _WARMUP_PASSES, _WARMUP_STATISTICS)
        name = head_key(self.settings, self.index, self.net, rows, freeze_depth, *fitting)
        return self.heads.get(name, partial(self._fit_head, rows, freeze_depth))

    def _fit_head(self, rows: NDArray[np.int64], freeze_depth: int) -> dict[str, Tensor]:
        labels, seed = self.index.labels, self.settings.seed
        chosen = self.statistics_rows(rows)
        rows = np.sort(np.random.default_rng([seed, 3]).permutation(rows)[:_WARMUP_IMAGES])
        batches = partial(ActivationBatches, self.cache, freeze_depth)
        return fit_head(
            self.net,
            freeze_depth,
            batches(rows, labels[rows], batch_size=_WARMUP_BATCH, view_order=self.view_order, seed=seed),
            (x for x, *_ in batches(chosen, labels[chosen], batch_size=self.settings.trainer.batch_size)),
            classes=len(self.classes),
            passes=min(_WARMUP_PASSES, self.view_order.shape[1]),
            weight=self.class_weights(rows),
            seed=seed,
        )


def build_task(
    settings: Settings,
    images: ImageSet,
    splits: Splits,
    *,
    cache: Path,
    watched: NDArray[np.int64] | None = None,
    start: Path | None = None,
    on_note: Callable[[str], None] = lambda _: None,
    first: Task | None = None,
    network: str | None = None,
) -> Task:
    """Build the network for the classes found and open the activation cache under `cache`.

    Where `model.name` names several, that of the first; `Task.of` gives the others.

    Args:
        images, splits, watched: of images; where these are cut into tiles, the task's are of tiles.
        start: see `Task`; its classes are those of the images.
        on_note: called with a line for each depth whose activations cannot be stored, and for a damaged file that is
            made again.
        first, network: of another network of the study: the task of the first one, and which it is.

    Raises:
        InputError: weights that cannot be had or do not fit, or a model to start from that is damaged.
    """
    settings = resolved(settings, images)
    watched = np.zeros(0, np.int64) if watched is None else images.pixel_rows(watched)[0]
    images, splits = tile_rows(images, splits, settings.data.tile_defect)
    device = choose_device(settings.trainer.accelerator)
    if settings.model.several and first is None:
        network = settings.model.names[0]
    net = _start_net(settings, len(images.index.classes), start, network).to(device)
    data = settings.data
    views = Views(data.views, data.flip, data.shift, data.gain, data.offset, settings.seed, data.orientation)
    parameters = views.parameters([record.digest for record in images.index.records])

    def inputs(rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images.pixels[rows])).to(device)
        chosen = parameters.select(torch.from_numpy(rows), torch.from_numpy(numbers))
        return apply_views(pixels, chosen.to(device))

    order = view_order(len(images.index.records), data.views, settings.seed)
    key = activation_key(settings, images.index, splits, net, watched)
    activations = ActivationCache(
        net,
        inputs,
        _shards(
            splits, order, data.views, partial(statistics_rows, settings), watched, _refitted(settings, images.index)
        ),
        precision=settings.trainer.activations,
        folder=cache / "activations",
        key=key,
        capacity=int(settings.trainer.cache_gigabytes * 1e9),
        measure=True,
        on_note=on_note,
    )
    flops = block_flops(net, data.pixels)
    heads = HeadStore(cache / "activations" / key, device, on_note)
    task = Task(
        settings, images, splits, net, activations, flops, device, inputs, order, heads, watched, start, network
    )
    if first is not None:
        task.unit = first.flops
    elif settings.model.several:
        task.others = lambda name: build_task(
            settings, images, splits, cache=cache, watched=watched, on_note=on_note, first=task, network=name
        )
    return task


def _start_net(settings: Settings, classes: int, start: Path | None, network: str | None) -> BlockNet:
    if start is not None:
        return alone(load_model(start).net)
    return backbones.build(
        settings.model.architecture if network is None else settings.model.architecture_of(network),
        classes=classes,
        size=settings.data.pixels,
        weights=settings.model.weights,
        seed=settings.seed,
        attention=settings.model.attention,
    )


def statistics_rows(settings: Settings, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows among these training rows whose plain images re-estimate batch-norm, the same for all trials."""
    return np.random.default_rng([settings.seed, 2]).permutation(rows)[: settings.trainer.batch_norm_images]


def _refitted(settings: Settings, index: ImageIndex) -> tuple[int, NDArray[np.bool_]]:
    """How many passes a refit makes that goes on from its trial, and which rows may be trained on."""
    passes = (settings.search.refit_epochs or 0) if settings.search.refit else 0
    return passes, np.ones(len(index.labels), bool) if index.tiles is None else index.tiles.trainable


def _shards(
    splits: Splits,
    order: NDArray[np.int64],
    views: int,
    statistics: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    watched: NDArray[np.int64],
    refitted: tuple[int, NDArray[np.bool_]],
) -> list[NDArray[np.int64]]:
    """What is stored together: plain images that every evaluation reads, what each training pass adds, what refits add.

    A refit reads validation images in the views of training passes.

    Args:
        refitted: how many passes a refit makes, and of which rows.
    """

    def pairs(rows: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.stack([rows, shown], axis=1).astype(np.int64)

    plain = np.unique(np.concatenate([watched, *(part for f in splits.folds for part in (f.val, statistics(f.train)))]))
    trained = np.unique(np.concatenate([f.train for f in splits.folds]))
    shards = [pairs(plain, np.zeros_like(plain))]
    for number in range(views + 1):
        shown = order[trained, number]
        new = (shown > 0) | ~np.isin(trained, plain)
        shards.append(pairs(trained[new], shown[new]))
    passes, allowed = refitted
    judged = np.setdiff1d(np.concatenate([f.val for f in splits.folds]), trained)
    judged = judged[allowed[judged]]
    for number in range(min(passes, views + 1)):
        shown = order[judged, number]
        shards.append(pairs(judged[shown > 0], shown[shown > 0]))
    return shards
