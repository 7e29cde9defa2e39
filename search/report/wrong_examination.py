"""Images that a network has wrong, and where it looked: of the test images by the winner, else of the validation ones.

The winner's score is final then: it was made by the one reading of `search.outcome.winner`; nothing is chosen here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explain.attribution import METHODS, finite_maps
from lightning_modules.networks.blocknet import BlockNet
from search.outcome.reference import task_features
from search.outcome.test_predictions import TestPredictions
from search.report.judged_images import METHOD, JudgedImages
from search.report.wrong_images import ALIKE, EMPTY, SPREAD, WrongImage, WrongImages
from search.trial.task import Task

__all__ = ["answer_images", "examine_wrong", "says_nothing"]

_PICTURED = 24
_SIDE = 320  # pixels: 160 on a page, twice that on a fine screen
_BATCH = 32
_SPREAD_SHARE = 0.5  # of the image above half of the map's maximum
_ALIKE_COSINE = 0.95
_FEWEST_POSITIONS = 4


def answer_images(
    task: Task, net: BlockNet, rows: NDArray[np.int64], temperature: float | None = None
) -> TestPredictions:
    """A network's answers.

    Args:
        task: of this network.
        rows: of the task's index.
        temperature: see `ModelCard`.
    """
    answers, _ = task_features(task, net.to(task.device), rows)
    logits = answers.logits.double() / (temperature or 1.0)
    return TestPredictions(answers.rows, answers.labels.cpu().numpy(), logits.softmax(1).cpu().numpy())


def examine_wrong(
    task: Task, net: BlockNet, version: str, answers: TestPredictions
) -> tuple[WrongImages, NDArray[np.int64]]:
    """Look at the images that are wrong.

    Args:
        task: of this network.
        version: of the model; empty for a trial's network.
        answers: of the network.

    Returns:
        The wrong images, and the confusion matrix (K, K), row = true class.
    """
    judged = JudgedImages(task, net.to(task.device), answers.rows, answers.probabilities, answers.labels)
    wrong = _ordered(judged)
    maps, cells = _maps(judged, wrong[:_PICTURED])
    images = [
        _wrong_image(judged, place, maps.get(place), shown=number < _PICTURED)
        for number, place in enumerate(wrong.tolist())
    ]
    notes = list(judged.notes)
    if maps and min(cells) < _FEWEST_POSITIONS:
        side = f"{_FEWEST_POSITIONS} x {_FEWEST_POSITIONS}"
        notes.append(f"At this size of images no block has maps of {side} cells or more: they hardly say where.")
    if task.index.tiles is not None:
        notes.append("Images are cut into tiles: pictures and maps show the tile of each that decided.")
    found = WrongImages(
        version=version,
        judged=len(judged.rows),
        found=len(wrong),
        images=tuple(images),
        pictured=sum(bool(one.image) for one in images),
        silent=sum(bool(one.nothing) for one in images),
        method=METHOD,
        block=judged.block,
        cells=cells,
        notes=tuple(notes),
        pictures=judged.store.pictures,
    )
    return found, judged.confusion


def _ordered(judged: JudgedImages) -> NDArray[np.int64]:
    """Places of the wrong images: the commonest confusions first, in each the surest."""
    wrong = np.flatnonzero(judged.predicted != judged.labels)
    counts = judged.confusion[judged.labels[wrong], judged.predicted[wrong]]
    sure = judged.probabilities[wrong, judged.predicted[wrong]]
    return wrong[np.lexsort((-sure, judged.predicted[wrong], judged.labels[wrong], -counts))]


def _maps(judged: JudgedImages, places: NDArray[np.int64]) -> tuple[dict[int, tuple[Tensor, Tensor]], tuple[int, int]]:
    """Place -> maps (h, w) of the class it was taken for and of its own, and how many positions they have."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    cells = (0, 0)
    if not judged.block or not len(places):
        return found, cells
    module = {judged.block: judged.blocks[judged.block]}
    for part in np.array_split(places, -(-len(places) // _BATCH)):
        both = []
        for targets in (judged.predicted[part], judged.labels[part]):
            (signals,) = judged.signals(part, targets, module)
            both.append(finite_maps(METHODS[METHOD](signals)).cpu())
        cells = (both[0].shape[1], both[0].shape[2])
        found |= {place: (both[0][n], both[1][n]) for n, place in enumerate(part.tolist())}
    return found, cells


def _wrong_image(judged: JudgedImages, place: int, maps: tuple[Tensor, Tensor] | None, *, shown: bool) -> WrongImage:
    classes, p = judged.task.classes, judged.probabilities[place]
    true, predicted = int(judged.labels[place]), int(judged.predicted[place])
    return WrongImage(
        path=judged.name(place),
        true=classes[true],
        predicted=classes[predicted],
        probability=float(p[predicted]),
        true_probability=float(p[true]),
        image=judged.picture(place, side=_SIDE) if shown else "",
        map="" if maps is None else judged.picture(place, maps[0], side=_SIDE),
        nothing="" if maps is None else says_nothing(*maps),
    )


def says_nothing(predicted: Tensor, own: Tensor) -> str:
    """Why a map says nothing: EMPTY, SPREAD or ALIKE; empty where it may say something.

    Args:
        predicted: map of the class that an image was taken for, (h, w), non-negative.
        own: map of its own class, likewise.
    """
    top = float(predicted.max())
    if not top > 0:
        return EMPTY
    if float((predicted >= top / 2).float().mean()) > _SPREAD_SHARE:
        return SPREAD
    alike = torch.cosine_similarity(predicted.flatten(), own.flatten(), dim=0)
    return ALIKE if float(alike) >= _ALIKE_COSINE else ""
