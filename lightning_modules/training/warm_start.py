"""The head each trial starts from: fitted once for a freeze depth, to the features that trial will train on.

Thawed batch-norm normalises by the batches it is trained on, not by ImageNet. On images far from ImageNet the two
differ so much that a head fitted to the frozen network's features is worthless once blocks are thawed: on NEU with
ten images a class and nothing frozen, it scored 0.31 before the first step where the frozen network scored 0.95, and
0.65 after two epochs. So batch-norm behind the freeze depth is re-estimated first and the head is fitted to what
comes out then: 0.88 before the first step, 0.93 after two epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_modules.networks.batch_norm import batch_norms_behind, reestimate_batch_norm
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.freezing import freeze
from lightning_modules.training.probe import warm_up_head
from lightning_modules.whole_file import whole_file

__all__ = ["HeadStore", "fit_head", "warm_depth"]

State = dict[str, Tensor]


def warm_depth(net: BlockNet, depth: int) -> int:
    """The freeze depth whose head a trial at `depth` starts from: its own, or L where no batch-norm is thawed."""
    return depth if batch_norms_behind(net, depth) else net.num_blocks


def fit_head(
    net: BlockNet,
    depth: int,
    batches: Iterable[Sequence[Any]],
    statistics: Iterable[Tensor],
    *,
    classes: int,
    passes: int,
    weight: Tensor | None,
    seed: int,
) -> State:
    """Fit a copy of the network's head at a freeze depth, with thawed batch-norm re-estimated.

    Args:
        net: the pre-trained network; it is left as it is.
        depth: the freeze depth.
        batches: gives (activations at the cut `depth`, labels, ...) of training images, perhaps in other views each
            time it is iterated over.
        statistics: activations at that cut of the images that re-estimate batch-norm.
        classes: number of classes.
        passes: how often a linear head's probe goes through `batches`.
        weight: (classes,) weights of the loss, or None.
        seed: of dropout.

    Returns:
        The head's state.
    """
    net = deepcopy(net)
    freeze(net, depth)
    reestimate_batch_norm(net, statistics, depth)
    net.eval()
    warm_up_head(net.head, _LastBlock(net, depth, batches), classes, passes=passes, weight=weight, seed=seed)
    return {name: tensor.detach().clone() for name, tensor in net.head.state_dict().items()}


class _LastBlock:
    """The same batches behind the last block."""

    def __init__(self, net: BlockNet, depth: int, batches: Iterable[Sequence[Any]]) -> None:
        self._net, self._depth, self._batches = net, depth, batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for activations, labels, *_ in self._batches:
            with torch.no_grad():
                features = self._net.between(activations, self._depth, self._net.num_blocks)
            yield features, labels


class HeadStore:
    """Fitted heads on disk, shared by processes and by later studies; in memory for this one.

    Args:
        folder: of the files; they are complete or absent.
        device: where heads are given.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._known: dict[str, State] = {}

    def get(self, name: str, fit: Callable[[], State]) -> State:
        """The head called `name`, fitted now if no process has done so yet."""
        if name not in self._known:
            path = self._folder / f"head-{name}.safetensors"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    self._known[name] = _load(path) or _save(path, fit())
            except OSError:  # a full or read-only disk: each process fits its own
                self._known[name] = fit()
        return {key: tensor.to(self._device) for key, tensor in self._known[name].items()}


def _load(path: Path) -> State | None:
    try:
        return load_file(path)
    except (OSError, SafetensorError):  # missing or damaged
        return None


def _save(path: Path, state: State) -> State:
    """Write a head if the disk takes it; each process fits its own if not."""
    with suppress(OSError, SafetensorError), whole_file(path) as temporary:  # the caller holds the lock
        save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, temporary)
    return state
