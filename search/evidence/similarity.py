"""How like the source images a task's images are, measured without source images: what the advisor goes by.

Two measures: how much better a linear probe does on pre-trained features than on those of the same network with random
weights, and how far the features' means lie from those that the pre-trained batch-norm layers remember.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explain.evidence import Cost
from explain.evidence.linear_probe import FOLDS, RIDGE, probe_accuracy, stratified_folds
from explain.hooks import frozen_in_eval_mode
from lightning_modules.networks import backbones
from lightning_modules.networks.attention_branch import attended
from lightning_modules.networks.batch_norm import batch_norms_behind, reestimate_batch_norm
from lightning_modules.networks.blocknet import BlockNet
from search.trial.task import Task

__all__ = ["Similarity", "feature_distance", "measure_similarity", "probe_gain"]


@dataclass(frozen=True)
class Similarity:
    """What the advisor reads.

    Attributes:
        images_per_class: training images divided by classes.
        gain: see `probe_gain`.
        distance: see `feature_distance`.
    """

    images_per_class: float
    gain: float
    distance: float | None
    cost: Cost

    def options(self) -> dict[str, Any]:
        """Of the scorer `advisor`."""
        return {"images_per_class": self.images_per_class, "gain": self.gain, "distance": self.distance}


def measure_similarity(task: Task, rows: NDArray[np.int64]) -> Similarity:
    """Measure it on the plain images at `rows`, training and validation alike; the network is left as it is."""
    started = time.perf_counter()
    images = task.inputs(rows, np.zeros_like(rows))
    labels = np.unique(task.index.labels[rows], return_inverse=True)[1].astype(np.int64)
    random = backbones.build(
        task.net.architecture, classes=2, size=task.settings.data.pixels, weights="none",
        seed=task.settings.seed, attention=task.net.attention_block,
    ).to(task.device)  # fmt: skip
    count = max(1, len(images) // 64)
    parts = [images[chosen] for chosen in np.array_split(np.arange(len(images)), count)]
    reestimate_batch_norm(random, [random.prefix(x, 0) for x in parts], 0)
    gain = probe_gain(_features(task.net, images), _features(random, images), labels, seed=task.settings.seed)
    distance = feature_distance(task.net, images)
    train = task.splits.folds[0].train
    return Similarity(
        len(train) / len(np.unique(task.index.labels[train])),
        gain,
        distance,
        Cost(time.perf_counter() - started, 4 * len(rows)),
    )


def probe_gain(features: Tensor, random: Tensor, labels: NDArray[np.int64], *, seed: int = 0) -> float:
    """1 - e / e_random, the errors of cross-validated ridge classifiers on two sets of features.

    Args:
        features: of the pre-trained network, (N, C).
        random: of the random one, (N, D).
        labels: classes 0..K-1, (N,).

    Returns:
        At most 1; NaN where a class has one image, or where the random features leave no error to spare.
    """
    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        return math.nan
    fold = stratified_folds(labels, min(FOLDS, smallest), np.random.default_rng(seed))
    wrong, base = (
        1 - float(probe_accuracy(f.double().numpy(), labels[None], fold, RIDGE)[0]) for f in (features, random)
    )
    return 1 - wrong / base if base > 0 else math.nan


@torch.no_grad()
def feature_distance(net: BlockNet, images: Tensor) -> float | None:
    """Mean over the blocks' batch-norm layers of the mean over channels of |m - m_source| / sqrt(v_source + eps).

    m is the mean of a layer's input over images and positions, m_source and v_source what it remembers.

    Args:
        images: (N, 3, H, W) in [0, 1].

    Returns:
        In source standard deviations; None for a network without such layers.
    """
    branch = attended(net)
    fresh = set() if branch is None else {id(module) for module in branch.branch.modules()}  # remembers no source
    inside = {id(module) for module in net.blocks.modules()} - fresh
    layers = [layer for layer in batch_norms_behind(net, 0) if id(layer) in inside]
    found: list[float] = []

    def read(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = layer.running_mean, layer.running_var
        off = (inputs[0].mean((0, 2, 3)) - mean).abs() / (variance + layer.eps).sqrt()  # type: ignore[operator]
        found.append(float(off.mean()))

    hooks = [layer.register_forward_pre_hook(read) for layer in layers]
    try:
        with frozen_in_eval_mode(net):
            net.prefix(images, net.num_blocks)
    finally:
        for hook in hooks:
            hook.remove()
    return float(np.mean(found)) if found else None


@torch.no_grad()
def _features(net: BlockNet, images: Tensor) -> Tensor:
    with frozen_in_eval_mode(net):
        return net.prefix(images, net.num_blocks).float().mean((2, 3)).cpu()
