"""What can be read from each block of the champion in a new month: a linear classifier on old images and new ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explain.evidence.linear_probe import stratified_folds
from search.retrain.month.baseline import Baseline

__all__ = ["beyond_chance", "month_probe"]

Labels = NDArray[np.int64]

_FOLDS = 5
_RIDGE = 1e-2
_PERMUTATIONS = 500
_LEVEL = 0.05


def month_probe(old: Baseline, new: Baseline, block: int, *, seed: int = 0) -> Labels | None:
    """Answers of a linear classifier on one block's pooled output for each new image, trained without that fold.

    Ridge regression to one-hot classes in its dual form, on features centred and scaled as one; all old images
    together weigh as much as all new ones that are trained on. Classes are matched by name.

    Args:
        old: trained on.
        new: trained on but for the fold that is answered, whole classes spread over the folds; (n1,) answers.
        block: number of the block, from 0.

    Returns:
        Predicted classes by the new sample's numbers, (n1,); None where features are not finite or there are fewer
        than two classes.
    """
    number = {name: i for i, name in enumerate(new.classes)}
    # A class that the new sample has no name for gets a number of its own, so that it can be answered, wrongly.
    renamed = np.array([number.setdefault(old.classes[label], len(number)) for label in old.labels])
    x_old, x_new = old.block_features[block].astype(np.float64), new.block_features[block].astype(np.float64)
    labels = np.concatenate([renamed, new.labels])
    if len(np.unique(labels)) < 2 or not (np.isfinite(x_old).all() and np.isfinite(x_new).all()):
        return None
    x = np.concatenate([x_old, x_new])
    fold = np.concatenate([np.full(len(old), -1), _grouped_folds(new, seed)])
    one_hot = np.eye(len(number))[labels]
    answers = np.full(len(new), -1, dtype=np.int64)
    for one in range(_FOLDS):
        train, test = fold != one, fold == one
        if not test.any():
            continue
        recent = int((train[len(old) :]).sum())
        weight = np.concatenate([np.full(len(old), max(recent, 1) / len(old)), np.ones(recent)])
        weight /= weight.sum()
        centre, mean = weight @ x[train], weight @ one_hot[train]
        rows = x[train] - centre
        scale = max(float(weight @ (rows**2).sum(axis=1)), np.finfo(np.float64).tiny)
        gram = rows @ rows.T / scale + np.diag(_RIDGE / weight)
        solved = np.linalg.solve(gram, one_hot[train] - mean)
        answers[test[len(old) :]] = ((x[test] - centre) @ rows.T / scale @ solved + mean).argmax(axis=1)
    return answers


def _grouped_folds(new: Baseline, seed: int) -> Labels:
    """Folds of the new images, classes spread evenly; images of one group share the fold of the group's first one."""
    _, first, of = np.unique(new.groups, return_index=True, return_inverse=True)
    by_group = stratified_folds(new.labels[first], _FOLDS, np.random.default_rng(seed))
    return np.asarray(by_group[of], dtype=np.int64)


def beyond_chance(answers: Sequence[Labels], labels: Labels, rng: np.random.Generator) -> bool:
    """Whether the best of some answers, (n,) each, fits the labels better than permuted labels do, 5 %."""
    dealt = np.vstack([labels, rng.permuted(np.tile(labels, (_PERMUTATIONS, 1)), axis=1)])
    right = np.max([(one == dealt).sum(axis=1) for one in answers], axis=0)
    return bool(np.mean(right >= right[0]) < _LEVEL)
