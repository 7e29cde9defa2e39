"""What the winning trial's network, which has seen training images alone, does on validation images.

The registered winner was refitted on training and validation images together, so it cannot be judged on them. The test
images are read once, by the winner: not here. So the winning trial's network is taken from where the trial left it, or
made again from its parameters and seed (one training), and judged on the validation images of its first fold, which it
has not seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from explain.attribution import METHODS, finite_maps
from explain.subject import measure
from lightning_modules.training.scores import scores
from search.outcome.figures import block_slides
from search.outcome.reference import task_features
from search.report.confused_pairs import confused_pairs
from search.report.findings import BlockMeasures, Findings, Suspect
from search.report.judged_images import METHOD, JudgedImages
from search.study.record import Winner
from search.study.sampler import slot_seed
from search.trial.result import TrialParams
from search.trial.task import Task
from search.trial.training import trial_network

__all__ = ["Examination", "SuspectLabel", "examine", "suspect_labels"]

_MAPPED = 128  # images whose maps are measured
_SUSPECTS = 24  # shown
_SLIDE_CLASSES = 6
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Examination:
    """What `examine` found.

    Attributes:
        rows: judged rows of the index; of an image in tiles, the tile that decided.
        labels: classes of the images, (N,).
        probabilities: of them, (N, K).
        slides: maps of an image of each class, one picture a block, as `block_slides` gives them; empty without maps.
    """

    findings: Findings
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    slides: list[tuple[int, NDArray[np.uint8]]]


def examine(
    task: Task, winner: Winner, checkpoint: Path | None = None, *, cancelled: Callable[[], bool] = lambda: False
) -> Examination:
    """Examine the validation images of the first fold.

    Args:
        winner: whose configuration it is.
        checkpoint: of the winning trial; where its network does not lie beside it, it is trained again.
        cancelled: asked before every training batch; True raises `TrialCancelledError`.
    """
    started = time.perf_counter()
    fold, seed = task.splits.folds[0], slot_seed(task.settings.seed, winner.slot)
    params = TrialParams(**winner.params)
    notes: list[str] = []
    net = trial_network(
        task, params, seed, winner.epochs, checkpoint=checkpoint, cancelled=cancelled, on_note=notes.append
    )
    answers, _ = task_features(task, net, fold.val)
    labels = answers.labels.numpy()
    judged = JudgedImages(task, net, answers.rows, answers.logits.double().softmax(1).numpy(), labels)
    found = scores(answers.logits, answers.labels)
    pairs, pairs_found = confused_pairs(judged)
    suspects, suspects_found = _suspects(judged)
    notes += judged.notes
    if task.index.tiles is not None:
        notes.append("Images are cut into tiles: pictures and maps show the tile of each that decided.")
    if len(task.splits.folds) > 1:
        notes.append(f"Only the validation images of the first of {len(task.splits.folds)} folds are judged.")
    mapped = judged.some(np.arange(len(judged.rows)), _MAPPED if judged.blocks else 0)
    trained = task.image_index.labels[task.image_rows(fold.train)]
    findings = Findings(
        slot=winner.slot,
        epochs=winner.epochs,
        training_images=len(trained),
        judged=len(judged.rows),
        accuracy=found["accuracy"],
        score=found[task.settings.search.metric],
        trial_score=winner.value,
        classes=task.classes,
        confusion=tuple(tuple(int(n) for n in row) for row in judged.confusion),
        method=METHOD,
        block=judged.block,
        mapped=len(mapped),
        measures=_measures(judged, mapped),
        pairs=pairs,
        pairs_found=pairs_found,
        suspects=suspects,
        suspects_found=suspects_found,
        seconds=time.perf_counter() - started,
        notes=tuple(notes),
        pictures=judged.store.pictures,
        blocks=task.net.block_names,
        training=tuple(np.bincount(trained, minlength=len(task.classes)).tolist()),
    )
    return Examination(findings, judged.rows, judged.labels, judged.probabilities, _slides(judged))


def _slides(judged: JudgedImages) -> list[tuple[int, NDArray[np.uint8]]]:
    """Maps of the predicted class of one image of each class, block by block; A → B is an A taken for a B."""
    if not judged.blocks:
        return []
    labels = [label for label in range(len(judged.task.classes)) if (judged.labels == label).any()][:_SLIDE_CLASSES]
    places = np.array([judged.some(np.flatnonzero(judged.labels == label), 1)[0] for label in labels])
    captured = judged.signals(places, judged.predicted[places], judged.blocks)
    numbers = {name: number for number, name in enumerate(judged.task.net.block_names, start=1)}
    maps = [
        (numbers[name], name, finite_maps(METHODS[METHOD](signals)).cpu())
        for name, signals in zip(judged.blocks, captured, strict=True)
    ]
    classes = judged.task.classes
    captions = [
        classes[label] if label == found else f"{classes[label]} → {classes[found]}"
        for label, found in zip(labels, judged.predicted[places], strict=True)
    ]
    return block_slides(torch.stack([judged.image(place) for place in places]), captions, maps)


def _measures(judged: JudgedImages, places: NDArray[np.int64]) -> tuple[BlockMeasures, ...]:
    """Mean measures of the maps of the predicted class, by block."""
    if not len(places):
        return ()
    by_block: dict[str, dict[str, list[float]]] = {label: {} for label in judged.blocks}
    sizes: dict[str, tuple[int, int]] = {}
    for part in np.array_split(places, -(-len(places) // _BATCH)):
        captured = judged.signals(part, judged.predicted[part], judged.blocks)
        for label, signals in zip(judged.blocks, captured, strict=True):
            maps = finite_maps(METHODS[METHOD](signals)).cpu()
            sizes[label] = (maps.shape[1], maps.shape[2])
            for column, found in measure(maps).items():
                by_block[label].setdefault(column, []).extend(found)
    return tuple(
        BlockMeasures(
            block=label,
            height=sizes[label][0],
            width=sizes[label][1],
            **{column: _mean(values) for column, values in columns.items()},
        )
        for label, columns in by_block.items()
    )


def _suspects(judged: JudgedImages) -> tuple[tuple[Suspect, ...], int]:
    """The most doubtful labels, and how many there are in all."""
    found = suspect_labels(judged.probabilities, judged.labels)
    classes, p = judged.task.classes, judged.probabilities
    return tuple(
        Suspect(
            path=judged.name(one.place),
            given=classes[judged.labels[one.place]],
            suggested=classes[one.suggested],
            confidence=float(p[one.place, one.suggested]),
            threshold=one.threshold,
            given_probability=float(p[one.place, judged.labels[one.place]]),
            image=judged.picture(one.place),
        )
        for one in found[:_SUSPECTS]
    ), len(found)


@dataclass(frozen=True)
class SuspectLabel:
    """One doubtful label: the image's place among those judged, the likelier class, and that class's threshold."""

    place: int
    suggested: int
    threshold: float


def suspect_labels(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> list[SuspectLabel]:
    """Labels that a network which has not seen the image contradicts, the largest excess of probability first.

    Confident learning (Northcutt, Jiang and Chuang 2021, doi 10.1613/jair.1.12125): the threshold of a class is the
    mean probability that it is given over the images with that label, t_j = mean of p_j over y = j. An image with label
    i is suspect where some other class j reaches its threshold, p_j >= t_j, and is the most probable of those that do,
    and its own label does not.

    Args:
        probabilities: out-of-sample class probabilities, (N, K).
        labels: given labels, (N,).
    """
    if not len(labels):
        return []
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    # A class without a judged image has no threshold and is never suggested.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = probabilities >= thresholds - 1e-9  # a mean of equal numbers is not quite that number
    confident = np.where(reached, probabilities, -1.0)
    suggested = confident.argmax(1)
    doubtful = np.flatnonzero(
        reached.any(1) & (suggested != labels) & (own < thresholds[labels]) & (probabilities.max(1) > own)
    )
    ordered = sorted(doubtful.tolist(), key=lambda n: (own[n] - probabilities[n, suggested[n]], n))
    return [SuspectLabel(n, int(suggested[n]), float(thresholds[suggested[n]])) for n in ordered]


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else None
