"""What the maps of a running trial say at a rung: computed in the worker, sent with the epoch's report.

Few validation images and their mirror images go through the blocks behind the freeze depth, once a rung: what leaves
the frozen blocks is computed once for all trials of a worker. Nothing of it changes the training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explain.evidence.trial_maps import TrialMaps, gather_trial_maps
from explain.evidence.trial_registry import TRIAL_STATISTICS
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.whole_file import whole_file
from search.trial.class_turns import by_turns
from search.trial.rungs import rungs
from search.trial.task import Task

if TYPE_CHECKING:
    from lightning_modules.training.classifier import Classifier

__all__ = ["KeptMaps", "MapStatistics", "compared_blocks", "maps_file", "read_maps", "watched_maps"]

FEWEST_IMAGES, MOST_IMAGES = 8, 32
SHARE = 8  # as many images as an eighth of the training images: more would cost more than a tenth of an epoch
_SHOWN = 4  # images whose maps are kept for the report


@dataclass(frozen=True)
class MapStatistics:
    """What a worker computes of a trial at its rungs.

    Attributes:
        at: epochs from 1, of all folds together.
        read: (network in training, its trial's step from 1) -> statistic -> block -> value, and seconds.
    """

    at: Collection[int] = ()
    read: Callable[[Classifier, int], tuple[dict[str, dict[str, float]], float]] = field(default=lambda *_: ({}, 0.0))


@dataclass(frozen=True, eq=False)
class KeptMaps:
    """Maps of a trial at a rung on a few images, for the report.

    Attributes:
        rows: of the task's index, (n,).
        blocks: compared blocks, the deepest last.
        maps, mirrored: by block (n, h, w), float32; the second of the mirror image, mirrored back.
    """

    rows: NDArray[np.int64]
    blocks: tuple[str, ...]
    maps: tuple[NDArray[np.float32], ...]
    mirrored: tuple[NDArray[np.float32], ...]


class _Behind(nn.Module):
    """What runs behind a cut: logits from activations there."""

    def __init__(self, net: BlockNet, cut: int) -> None:
        super().__init__()
        self.net, self._cut = net, cut

    def forward(self, activations: Tensor) -> Tensor:
        """Logits (N, K) from activations (N, C, H, W)."""
        return self.net.suffix(activations, self._cut)


def compared_blocks(task: Task) -> tuple[int, ...]:
    """Numbers from 0 of the blocks whose maps are compared: the last that has a map, and the last before it with a
    larger one.

    Deeper than that maps have few positions; farther down Grad-CAM becomes an edge map, and costs more.
    """
    sides = [int(np.prod(task.cache.shape(cut)[1:])) for cut in range(1, task.net.num_blocks + 1)]
    last = max((number for number, side in enumerate(sides) if side > 1), default=None)
    if last is None:
        return ()
    larger = [number for number in range(last) if sides[number] > sides[last]]
    return (*larger[-1:], last)


def watched_images(task: Task, train: NDArray[np.int64], val: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) rows of the validation images that are shown: as many of each class as there are, drawn by the study's seed.

    Args:
        train: training rows of the fold; n is an eighth of their number, within [8, 32].
    """
    val = task.trainable(val)
    most = min(max(len(train) // SHARE, FEWEST_IMAGES), MOST_IMAGES)
    drawn = np.random.default_rng([task.settings.seed, 11]).permutation(val)
    return drawn[by_turns(task.index.labels[drawn])[:most]]


def watched_maps(task: Task, freeze_depth: int, fold: int, checkpoint: Path | None) -> MapStatistics:
    """What is computed at the rungs of a trial of this freeze depth while it trains on this fold.

    Args:
        checkpoint: of the trial; beside it lie the maps of a few images (`read_maps`). None keeps none.
    """
    settings, split = task.settings, task.splits.folds[fold]
    if settings.search.pruner != "maps":
        return MapStatistics()
    rows = watched_images(task, split.train, split.val)
    numbers = _compared(task)
    if not len(rows) or not numbers:
        return MapStatistics()
    labels = torch.from_numpy(task.index.labels[rows])
    names = tuple(task.net.block_names[number] for number in numbers)
    cut = min(freeze_depth, numbers[0])  # so that the first of them runs

    def read(model: Classifier, step: int) -> tuple[dict[str, dict[str, float]], float]:
        started = time.perf_counter()
        net = model.net
        tails = [lambda x, cut=number + 1: net.suffix(x, cut) for number in numbers]
        found = gather_trial_maps(
            _Behind(net, cut), _with_mirrored(task, rows, cut), labels,
            [f"net.blocks.{name}" for name in names], tails, names=names, seed=settings.seed,
        )  # fmt: skip
        values = {name: value for name, of in TRIAL_STATISTICS.items() if (value := of(found))}
        if checkpoint is not None:
            with suppress(OSError):  # a full disk: the report has no picture of it
                _keep(maps_file(checkpoint, step), rows[:_SHOWN], found)
        return values, time.perf_counter() - started

    return MapStatistics(rungs(settings.trainer.epochs * len(task.splits.folds), task.batches), read)


def _compared(task: Task) -> tuple[int, ...]:
    if "compared" not in task.shown:
        task.shown["compared"] = compared_blocks(task)
    numbers: tuple[int, ...] = task.shown["compared"]
    return numbers


def _with_mirrored(task: Task, rows: NDArray[np.int64], cut: int) -> Tensor:
    """What leaves the first `cut` blocks of these images and of their mirror images, (2 n, C, H, W), computed once."""
    key = (cut, rows.tobytes())
    if key not in task.shown:
        images = task.inputs(rows, np.zeros(len(rows), np.int64))
        kept: Any = task.cache.through(torch.cat([images, images.flip(-1)]), cut)
        task.shown[key] = (
            kept.half() if cut and task.settings.trainer.activations == "float16" else kept
        )  # rounded so already
    found: Tensor = task.shown[key]
    return found.float().contiguous(memory_format=torch.channels_last)


def maps_file(checkpoint: Path, step: int) -> Path:
    """Where the maps of a trial at a rung lie; those of all attempts are the same."""
    return checkpoint.with_name(f"{checkpoint.name.split('.')[0]}.maps-{step}.npz")


def _keep(path: Path, rows: NDArray[np.int64], found: TrialMaps) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {
        "rows": rows,
        "blocks": np.array(found.blocks),
        **{f"maps-{b}": maps[: len(rows)].numpy().astype(np.float32) for b, maps in enumerate(found.maps)},
        **{f"mirrored-{b}": maps[: len(rows)].numpy().astype(np.float32) for b, maps in enumerate(found.mirrored)},
    }
    with whole_file(path, alone=False) as temporary, temporary.open("wb") as file:
        np.savez(file, **kept)


def read_maps(path: Path) -> KeptMaps | None:
    """The maps that lie there; None where there are none, or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as held:
            blocks = tuple(str(name) for name in held["blocks"])
            parts = {kind: tuple(held[f"{kind}-{b}"] for b in range(len(blocks))) for kind in ("maps", "mirrored")}
            return KeptMaps(held["rows"], blocks, **parts)
    except (OSError, ValueError, KeyError, EOFError):
        return None
