"""What all trials of a study share: images, splits, the pre-trained network, its activations and warm heads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules import backbones
from lightning_modules.activation_cache import ActivationCache
from lightning_modules.blocknet import BlockNet
from lightning_modules.cost import block_flops
from lightning_modules.datamodule import ActivationBatches
from lightning_modules.errors import InputError
from lightning_modules.image_index import ImageIndex
from lightning_modules.image_store import ImageSet
from lightning_modules.probe import warm_up_head
from lightning_modules.splits import Splits
from lightning_modules.views import Views, apply_views
from search.settings import Settings

__all__ = ["Task", "build_task", "choose_device", "state_digest"]


def choose_device(accelerator: str) -> torch.device:
    """The device of `trainer.accelerator`.

    Raises:
        InputError: a GPU was asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("trainer.accelerator=gpu needs a CUDA device and none was found; accepted here: auto, cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def state_digest(net: BlockNet) -> str:
    """Digest of a network's blocks: architecture and every tensor."""
    digest = hashlib.blake2b(net.architecture.encode(), digest_size=16)
    for name, tensor in net.blocks.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(eq=False)
class Task:
    """One data set, one pre-trained network, one way to split and to train.

    Attributes:
        settings: all settings.
        images: index and pixels.
        splits: folds and test rows.
        net: the pre-trained network; trials train copies of it.
        cache: activations at every cut.
        flops: forward operations by block, head last.
        device: where trials run.
        inputs: (rows, views) -> images (B, 3, H, W) in [0, 1]; view 0 is the plain image.
    """

    settings: Settings
    images: ImageSet
    splits: Splits
    net: BlockNet
    cache: ActivationCache
    flops: tuple[int, ...]
    device: torch.device
    inputs: Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor]
    _heads: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def index(self) -> ImageIndex:
        """The images' labels, months and groups."""
        return self.images.index

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""
        return self.images.index.classes

    def class_weights(self, rows: NDArray[np.int64]) -> Tensor | None:
        """(classes,) weights N / (classes * N_c) of the loss if they are asked for, else None."""
        if self.settings.trainer.class_weights == "none":
            return None
        counts = np.bincount(self.index.labels[rows], minlength=len(self.classes))
        return torch.tensor(len(rows) / (len(self.classes) * np.maximum(counts, 1)), dtype=torch.float32)

    def start_net(self, rows: NDArray[np.int64]) -> BlockNet:
        """A copy of the pre-trained network whose head is warmed up on the images `rows`, once for equal rows."""
        net = deepcopy(self.net)
        if self.net.pretrained and self.settings.trainer.warmup:
            key = hashlib.blake2b(rows.tobytes()).hexdigest()
            if key not in self._heads:
                self._heads[key] = self._warm_head(rows)
            net.head.load_state_dict(self._heads[key])
        return net

    def _warm_head(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        views, seed = self.settings.data.views, self.settings.seed
        head = deepcopy(self.net.head)
        batches = ActivationBatches(
            self.cache, self.net.depth, rows, self.index.labels[rows], batch_size=128, views=views, seed=seed
        )
        warm_up_head(head, batches, len(self.classes), passes=views + 1, weight=self.class_weights(rows), seed=seed)
        return {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}


def build_task(
    settings: Settings,
    images: ImageSet,
    splits: Splits,
    *,
    cache: Path,
    on_note: Callable[[str], None] = lambda _: None,
) -> Task:
    """Build the network for the classes found and open the activation cache under `cache`."""
    device = choose_device(settings.trainer.accelerator)
    net = backbones.build(
        settings.model.name,
        classes=len(images.index.classes),
        size=settings.data.size,
        weights=settings.model.weights,
        seed=settings.seed,
    ).to(device)
    data = settings.data
    views = Views(data.views, data.flip, data.shift, data.gain, data.offset, settings.seed)
    parameters = views.parameters([record.digest for record in images.index.records])

    def inputs(rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images.pixels[rows])).to(device)
        chosen = parameters.select(torch.from_numpy(rows), torch.from_numpy(numbers))
        return apply_views(pixels, chosen.to(device))

    used = np.unique(np.concatenate([np.concatenate([f.train, f.val]) for f in splits.folds]))
    pairs = np.stack([a.ravel() for a in np.meshgrid(used, np.arange(data.views + 1), indexing="ij")], axis=1)
    key = hashlib.blake2b(
        repr(
            (
                images.index.digest, sorted(r.digest for r in images.index.records), used.tobytes(), state_digest(net),
                views, data.size, data.fit, settings.trainer.activations,
            )
        ).encode(),
        digest_size=16,
    ).hexdigest()  # fmt: skip
    activations = ActivationCache(
        net,
        inputs,
        pairs.astype(np.int64),
        precision=settings.trainer.activations,
        folder=cache / "activations",
        key=key,
        capacity=int(settings.trainer.cache_gigabytes * 1e9),
        on_note=on_note,
    )
    return Task(settings, images, splits, net, activations, block_flops(net, data.size), device, inputs)
