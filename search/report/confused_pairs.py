"""The most confused pairs of classes: mistaken images, what they were taken for, and those that nearly were."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.report.false_associations import TRAITS, compare_traits
from search.report.findings import ConfusedPair, Mistake, NearMiss
from search.report.judged_images import JudgedImages, RegionEvidence

__all__ = ["confused_pairs"]

_COMPARED = 48  # images of each group that a pair's maps are compared over
_PAIRS, _MISTAKES, _NEAR = 6, 3, 3  # shown


def confused_pairs(judged: JudgedImages) -> tuple[tuple[ConfusedPair, ...], int]:
    """The pairs confused most often, of equals those with the larger share; and how many there are in all."""
    off = judged.confusion.copy()
    np.fill_diagonal(off, 0)
    share = off / np.maximum(judged.confusion.sum(1, keepdims=True), 1)
    found = sorted(np.argwhere(off > 0).tolist(), key=lambda p: (-off[p[0], p[1]], -share[p[0], p[1]], p))
    return tuple(_pair(judged, true, wrong) for true, wrong in found[:_PAIRS]), len(found)


def _pair(judged: JudgedImages, true: int, wrong: int) -> ConfusedPair:
    labels, predicted, p = judged.labels, judged.predicted, judged.probabilities
    task = judged.task
    trained = task.image_rows(task.splits.folds[0].train)
    training = np.bincount(task.image_index.labels[trained], minlength=len(task.classes))
    mistaken = judged.some(np.flatnonzero((labels == true) & (predicted == wrong)), _COMPARED)
    right = np.flatnonzero((labels == true) & (predicted == true))
    correct = judged.some(right, _COMPARED)
    models = judged.some(np.flatnonzero((labels == wrong) & (predicted == wrong)), _COMPARED)
    second = np.argsort(-p, axis=1, kind="stable")[:, 1]
    runners_up = right[second[right] == wrong]
    shown = mistaken[np.argsort(-p[mistaken, wrong], kind="stable")][:_MISTAKES]
    near = runners_up[np.argsort(p[runners_up, true] - p[runners_up, wrong], kind="stable")][:_NEAR]
    evidence = judged.evidence(np.concatenate([mistaken, correct, models]), wrong)
    return ConfusedPair(
        true=task.classes[true],
        predicted=task.classes[wrong],
        count=int(judged.confusion[true, wrong]),
        images=int(judged.confusion[true].sum()),
        runners_up=len(runners_up),
        training_true=int(training[true]),
        training_predicted=int(training[wrong]),
        mistakes=_mistakes(judged, shown, true, wrong, models, evidence),
        near=_near(judged, near, true, wrong),
        **_compared(mistaken, correct, evidence, task.settings.seed),
    )


def _mistakes(
    judged: JudgedImages,
    shown: NDArray[np.int64],
    true: int,
    wrong: int,
    models: NDArray[np.int64],
    evidence: RegionEvidence,
) -> tuple[Mistake, ...]:
    own = judged.evidence(shown, true)
    found = []
    for place in shown.tolist():
        p = judged.probabilities[place]
        like, similarity = evidence.nearest(place, models)
        found.append(
            Mistake(
                path=judged.name(place),
                probability=float(p[wrong]),
                true_probability=float(p[true]),
                image=judged.picture(place),
                predicted_map=judged.picture(place, evidence.maps[place]) if judged.block else "",
                true_map=judged.picture(place, own.maps[place]) if judged.block else "",
                resembles="" if like is None else judged.name(like),
                similarity=similarity,
                resembling_map="" if like is None else judged.picture(like, evidence.maps[like]),
            )
        )
    return tuple(found)


def _near(judged: JudgedImages, near: NDArray[np.int64], true: int, wrong: int) -> tuple[NearMiss, ...]:
    evidence = judged.evidence(near, wrong)
    found = []
    for place in near.tolist():
        p = judged.probabilities[place]
        other = judged.picture(place, evidence.maps[place]) if judged.block else ""
        found.append(NearMiss(judged.name(place), float(p[true] - p[wrong]), judged.picture(place), other))
    return tuple(found)


def _compared(
    mistaken: NDArray[np.int64], correct: NDArray[np.int64], evidence: RegionEvidence, seed: int
) -> dict[str, Any]:
    """`compared` and `traits` of the pair; dead maps have no traits and are left out."""
    kept = []
    for group in (mistaken, correct):
        rows = [evidence.traits[place] for place in group.tolist() if place in evidence.traits]
        table = np.array(rows).reshape(-1, len(TRAITS))
        kept.append(table[np.isfinite(table).all(1)])
    traits = compare_traits(kept[0], kept[1], seed=seed)
    return {"compared": (len(kept[0]), len(kept[1])), "traits": traits}
