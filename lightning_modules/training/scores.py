"""Scores of a classifier from its logits, by torchmetrics, and their intervals, by scipy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import classification

__all__ = ["TestScores", "exact_interval", "scores", "scores_with_intervals"]


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


def _from_confusion(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Scores of one (K, K) or many (B, K, K) confusion matrices; macro means are over classes that occur."""
    matrix = confusion.astype(float)
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted = matrix.sum(-1), matrix.sum(-2)
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
    summary = _from_confusion(confusion)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(cell), confusion.ravel() / len(cell), size=resamples).reshape(-1, count, count)
    resampled = _from_confusion(drawn)

    names = ("accuracy", "precision", "recall", "macro_f1", "weighted_f1")
    intervals = {n: tuple(float(q) for q in np.quantile(resampled[n], (0.025, 0.975))) for n in names[1:]}
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
        intervals={"accuracy": exact_interval(hits, len(cell)), **{n: (i[0], i[1]) for n, i in intervals.items()}},
        confusion=confusion,
        per_class=per_class,
    )
