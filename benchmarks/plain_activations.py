"""Tasks whose frozen blocks run once an image for all splits and classes: no augmented views, one file of activations.

What a search trains shows each image in four views beside the plain one, and each split stores its own activations. On
a few images a core is busy with that alone. Here `data.views=0`, and the frozen blocks' output of all rows is stored
together, so that only what is behind them is trained, and answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from lightning_modules.decisions.reference_images import unit_length
from lightning_modules.images.splits import Splits
from lightning_modules.networks.blocknet import BlockNet, final_linear
from lightning_modules.training.activation_cache import ActivationCache
from search.settings.compose import compose_settings
from search.settings.schema import Settings
from search.trial.preparation import load, prepare_process, resolved, split
from search.trial.task import Task, build_task

__all__ = ["answers", "plain_task", "with_split"]

_AT_ONCE = 64


def plain_task(words: list[str], root: Path, rows: NDArray[np.int64] | None = None) -> Task:
    """The task of these settings, whose activations are kept for the plain images at `rows`, None for all.

    Raises:
        InputError: settings or images that a search would refuse.
    """
    alike = ("data.views=0", "executor=inline", "executor.threads=1", f"tracking.root={root}")
    settings = compose_settings([*words, *alike])
    prepare_process(settings)
    console = Console(stderr=True)
    images = load(settings, console)
    settings = resolved(settings, images)
    task = build_task(settings, images, split(settings, images.index), cache=root / "cache", on_note=console.print)
    kept = np.arange(len(images.index.records)) if rows is None else rows
    digest = f"plain-{images.index.digest[:20]}-{'x'.join(map(str, settings.data.pixels))}-{len(kept)}"
    stored = ActivationCache(
        task.net, task.inputs, [np.stack([kept, np.zeros_like(kept)], axis=1)],
        precision=settings.trainer.activations, folder=root / "cache" / "activations", key=digest,
        capacity=int(settings.trainer.cache_gigabytes * 1e9), on_note=console.print,
    )  # fmt: skip
    return replace(task, cache=stored)


def with_split(task: Task, splits: Splits, settings: Settings | None = None) -> Task:
    """The same images and activations, otherwise split, and trained by other settings where these are given."""
    return replace(task, splits=splits, settings=settings or task.settings)


@torch.no_grad()
def answers(
    task: Task, net: BlockNet, depth: int, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Logits (N, classes), and penultimate features (N, D) of length 1, of a network whose first `depth` blocks are
    those of the task's.

    Raises:
        ValueError: a head that is not pooling and one linear layer.
    """
    linear = final_linear(net.head)
    if linear is None:
        raise ValueError("a head of one linear layer is needed")
    entered: list[torch.Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    try:
        parts = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
        logits = [net.eval().suffix(task.cache.at(depth, part, np.zeros_like(part)), depth) for part in parts]
    finally:
        hook.remove()
    return torch.cat(logits).double().numpy(), unit_length(torch.cat(entered).flatten(1).numpy())
