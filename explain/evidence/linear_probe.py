"""Linear-probe accuracy by freeze depth: how far does a linear classifier get on what the first k blocks put out?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explain.evidence.material import Material
from explain.evidence.null import mean_and_spread, permutations_within
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Numbers, Reading
from explain.measures.measure import check_integer

__all__ = ["FOLDS", "LINEAR_PROBE", "RIDGE", "linear_probe", "probe_accuracy", "stratified_folds"]

FOLDS = 5
"""Of the cross-validation; fewer where the smallest class has fewer images."""

RIDGE = 1e-3
"""Penalty relative to the number of training images."""


def stratified_folds(labels: NDArray[np.int64], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold 0..folds-1 of each image, (N,); every class is spread as evenly as it goes."""
    found = np.empty(len(labels), dtype=np.int64)
    offset = 0
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        found[members] = (np.arange(len(members)) + offset) % folds
        offset += len(members)  # so that the remainders of many classes do not all fall to fold 0
    return found


def probe_accuracy(features: Numbers, labels: NDArray[np.int64], fold: NDArray[np.int64], ridge: float) -> Numbers:
    """Cross-validated accuracy of a ridge classifier, for several labellings of the same images.

    Least squares to one-hot labels with a penalty on the weights, on features centred and divided by one number so that
    the mean squared length of a training image is 1; solved in its dual form, so all labellings share one solution.

    Args:
        features: (N, C), finite.
        labels: Classes 0..K-1, (D, N).
        fold: Fold of each image, (N,).
        ridge: Penalty relative to the number of training images, > 0.

    Returns:
        Share of right answers, (D,).
    """
    one_hot = np.eye(int(labels.max()) + 1)[labels]  # (D, N, K)
    right = np.zeros(len(labels))
    for number in np.unique(fold):
        test, train = fold == number, fold != number
        rows = features[train]
        centre = rows.mean(axis=0)
        rows = rows - centre
        scale = max(float(np.mean(np.sum(rows**2, axis=1))), np.finfo(np.float64).tiny)
        gram = rows @ rows.T / scale
        across = (features[test] - centre) @ rows.T / scale
        smooth = np.linalg.solve(gram + ridge * len(rows) * np.eye(len(rows)), across.T).T  # (test, train)
        wanted = one_hot[:, train]
        mean = wanted.mean(axis=1, keepdims=True)
        answers = (smooth @ (wanted - mean) + mean).argmax(axis=2)
        right += (answers == labels[:, test]).sum(axis=1)
    return np.asarray(right / labels.shape[1], dtype=np.float64)


def linear_probe(material: Material, *, draws: int = 50, seed: int = 0) -> Reading:
    """s(k) = cross-validated accuracy of a linear classifier on the pooled output of block k; s(0) on the pooled image.

    All probe images are used, training and validation alike: the blocks have seen neither.

    Source: Alain and Bengio 2016, arXiv 1610.01644; here a ridge classifier, since it has a closed form.
    Range: [0, 1]. Reading: freezing the first k blocks leaves the rest to work with what block k puts out; where that
    already separates the classes, little is lost by keeping it, and where the curve falls again, blocks that hurt were
    kept. So the score of depth k is the accuracy itself, and the prior's mode is the curve's highest point.
    Null: labels permuted within each fold, so that folds keep their classes.
    Cost: one forward pass of all images.

    Args:
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L+1,). All NaN where a class has one image; NaN for a depth with features that are not finite.
    """
    check_integer("draws", draws, 2)
    labels = np.unique(material.labels.numpy(), return_inverse=True)[1].astype(np.int64)
    rows = np.full((3, len(material.blocks) + 1), np.nan)
    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        return Reading(rows[0], rows[1], rows[2], ("a class has one image, so no probe can be cross-validated",))
    rng = np.random.default_rng(seed)
    fold = stratified_folds(labels, min(FOLDS, smallest), rng)
    labellings = np.vstack([labels, labels[permutations_within(fold, draws, rng)]])
    notes = []
    for depth, features in enumerate(material.depth_features):
        found = features.double().numpy()
        if not np.isfinite(found).all():
            notes.append(f"freeze depth {depth}: features are not finite")
            continue
        accuracy = probe_accuracy(found, labellings, fold, RIDGE)
        rows[:, depth] = (accuracy[0], *mean_and_spread(accuracy[1:]))
    return Reading(rows[0], rows[1], rows[2], tuple(notes))


LINEAR_PROBE = Scorer("linear_probe", "depth", linear_probe, needs=("before",))
