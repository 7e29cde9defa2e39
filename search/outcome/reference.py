"""The training images that a winner knows, and how far from them held-out images lie: what tells unknown images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_modules.decisions.reference_images import ReferenceImages, distances, unit_length
from lightning_modules.errors import printable
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.penultimate import answer
from search.trial.class_turns import by_turns
from search.trial.task import Judged, Task

__all__ = ["reference_images", "task_features", "training_distances"]

_MOST = 2048  # training images that travel with a model: 5 MB of 1,280 features

Floats = NDArray[np.float32]


@torch.no_grad()
def task_features(task: Task, net: BlockNet, rows: NDArray[np.int64]) -> tuple[Judged, Floats]:
    """Answers by image on the plain images at `rows`, and features of length 1, (M, D), in their order.

    Of an image in tiles they are those of the tile that decides.
    """
    net.eval()
    logits, features = [], []
    for part in np.array_split(rows, max(1, -(-len(rows) // task.images_at_once))):
        found = answer(net, task.inputs(part, np.zeros_like(part)))
        logits.append(found.logits.float().cpu())
        features.append(unit_length(found.features.float().cpu().numpy()).astype(np.float16))
    judged = task.judged(torch.cat(logits), rows)
    places = np.searchsorted(rows, judged.rows)
    return judged, unit_length(np.concatenate(features)[places])


def training_distances(task: Task, net: BlockNet, train: NDArray[np.int64], features: Floats) -> Floats:
    """Distances (M,) of images with these features (M, D) to those that the network was trained on, at rows `train`."""
    _, reference = task_features(task, net, _sample(task, train))
    return distances(features, reference)[0]


def reference_images(
    task: Task, net: BlockNet, rows: NDArray[np.int64], held_out: Floats, groups: NDArray[np.int64], *, most: int
) -> ReferenceImages:
    """What goes with the model.

    Args:
        net: the model's network, trained on the images at `rows`, ascending.
        held_out, groups: see `ReferenceImages`; (N,) each.
        most: images to keep at most: as many as the network of `held_out` was trained on. The more there are, the
            nearer is the nearest one, and a refitted network has seen more.
    """
    judged, features = task_features(task, net, _sample(task, rows, most))
    images = task.images_of(judged.rows)
    root = task.settings.data.path
    names = tuple(_name(task.image_index.records[row].path, root) for row in images.tolist())
    return ReferenceImages(features.astype(np.float16), names, held_out, groups)


def _sample(task: Task, rows: NDArray[np.int64], most: int = _MOST) -> NDArray[np.int64]:
    """All rows of `most` or `_MOST` of the images, whatever is less, ascending: as many of each class as there can be.

    The n-th image of each class comes before the (n + 1)-th of any, so that no rare class is left out.
    """
    of = task.images_of(rows)
    images = np.unique(of)
    most = min(most, _MOST)
    if len(images) <= most:
        return rows
    drawn = np.random.default_rng([task.settings.seed, 5]).permutation(images)
    kept = drawn[by_turns(task.image_index.labels[drawn])[:most]]
    return rows[np.isin(of, kept)]


def _name(path: Path, given: Path | None) -> str:
    """Relative to the folder given or to the manifest's; elsewhere the last two folders alone, none of this machine."""
    root = given if given is None or given.is_dir() else given.parent
    inside = root is not None and path.is_relative_to(root)
    return printable(path.relative_to(root) if root is not None and inside else Path(*path.parts[-3:]))
