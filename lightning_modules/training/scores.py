"""Scores of a classifier from its logits, by torchmetrics, and their intervals, by scipy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import classification

__all__ = ["TestScores", "exact_interval", "scores", "scores_with_intervals"]

_MOST_NUMBERS = 2**20


def scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss, accuracy, macro F1 and weighted F1 of logits (N, classes) and labels (N,) int64; in [0, 1] but the loss.

    A class that is in neither labels nor predictions is left out of macro F1 (torchmetrics' rule).
    """
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    return {
        "loss": float(F.cross_entropy(logits.float(), labels)),
        "accuracy": float((predicted == labels).float().mean()),
        "macro_f1": float(classification.multiclass_f1_score(predicted, labels, classes, average="macro")),
        "weighted_f1": float(classification.multiclass_f1_score(predicted, labels, classes, average="weighted")),
    }


@dataclass(frozen=True)
class TestScores:
    """What the winner reached on the test images.

    Attributes:
        values: accuracy, precision, recall (both macro), macro_f1, weighted_f1 and loss.
        intervals: the same names (but the loss) -> 95 % interval; accuracy's is exact (Clopper-Pearson), the others'
            are percentile bootstraps over the test images.
        confusion: (classes, classes) counts, row = true class, column = predicted class.
        per_class: class -> precision, recall, f1, images, and recall's exact interval (NaN without images).
    """

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confusion: NDArray[np.int64]
    per_class: dict[str, dict[str, float]]


def _from_counts(
    hit: NDArray[np.int64], true: NDArray[np.int64], predicted: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Scores from hits, images and answers by class, (K,) or (B, K) each; macro means are over classes that occur."""
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = np.where(true > 0, hit / true, 0.0)
        precision = np.where(predicted > 0, hit / predicted, 0.0)
        f1 = np.where(true + predicted > 0, 2 * hit / (true + predicted), 0.0)
    occurs = (true + predicted) > 0
    share = true / true.sum(-1, keepdims=True)
    mean = {n: (v * occurs).sum(-1) / occurs.sum(-1) for n, v in (("precision", precision), ("recall", recall))}
    return {
        "accuracy": hit.sum(-1) / true.sum(-1),
        **mean,
        "macro_f1": (f1 * occurs).sum(-1) / occurs.sum(-1),
        "weighted_f1": (f1 * share).sum(-1),
        "class_precision": precision,
        "class_recall": recall,
        "class_f1": f1,
    }


def _resampled(confusion: NDArray[np.int64], resamples: int, seed: int) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Scores of bootstrap resamples, a chunk at a time: no array has more than `_MOST_NUMBERS`, however many classes.

    Cells that hold no image are not drawn; but the last, which takes what the others leave, so that the draws are those
    of the whole table.
    """
    from scipy.sparse import csr_array

    count, images = len(confusion), confusion.sum()
    cells = np.union1d(np.flatnonzero(confusion), confusion.size - 1)
    row, column = np.divmod(cells, count)
    ones, each = np.ones(len(cells), np.int64), np.arange(len(cells))
    of_row, of_column = (csr_array((ones, (each, place)), shape=(len(cells), count)) for place in (row, column))
    of_hit = csr_array(((row == column).astype(np.int64), (each, row)), shape=(len(cells), count))
    rng = np.random.default_rng(seed)
    size = max(1, _MOST_NUMBERS // max(len(cells), count))
    for start in range(0, resamples, size):
        drawn = rng.multinomial(images, confusion.ravel()[cells] / images, size=min(size, resamples - start))
        yield _from_counts(drawn @ of_hit, drawn @ of_row, drawn @ of_column)


def exact_interval(hits: int, of: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson, Biometrika 1934); NaN where there was nothing to hit."""
    from scipy.stats import binomtest

    if not of:
        return float("nan"), float("nan")
    interval = binomtest(hits, of).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)


def scores_with_intervals(
    logits: Tensor, labels: Tensor, classes: tuple[str, ...], *, resamples: int = 2000, seed: int = 0
) -> TestScores:
    """Test scores of logits (N, classes) and labels (N,) int64, with 95 % intervals; the seed is the bootstrap's."""
    count = len(classes)
    cell = (labels * count + logits.argmax(1)).cpu().numpy()
    confusion = np.bincount(cell, minlength=count * count).reshape(count, count)
    summary = _from_counts(np.diagonal(confusion), confusion.sum(1), confusion.sum(0))
    names = ("accuracy", "precision", "recall", "macro_f1", "weighted_f1")
    drawn = [[chunk[n] for n in names[1:]] for chunk in _resampled(confusion, resamples, seed)]
    ends = np.quantile(np.concatenate(drawn, axis=1), (0.025, 0.975), axis=1)  # (2, names)
    intervals = {n: (float(low), float(high)) for n, low, high in zip(names[1:], *ends, strict=True)}
    hits = int(np.trace(confusion))
    per_class: dict[str, dict[str, float]] = {}
    for i, name in enumerate(classes):
        low, high = exact_interval(int(confusion[i, i]), int(confusion[i].sum()))
        per_class[name] = {
            **{kind: float(summary[f"class_{kind}"][i]) for kind in ("precision", "recall", "f1")},
            "images": float(confusion[i].sum()),
            "recall_low": low,
            "recall_high": high,
        }
    return TestScores(
        values={n: float(summary[n]) for n in names} | {"loss": float(F.cross_entropy(logits.float(), labels))},
        intervals={"accuracy": exact_interval(hits, len(cell)), **intervals},
        confusion=confusion,
        per_class=per_class,
    )
