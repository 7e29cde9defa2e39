"""LogME by freeze depth: the evidence of a Bayesian linear model on what the first k blocks put out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explain.evidence.material import Material
from explain.evidence.null import mean_and_spread
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Numbers, Reading
from explain.measures.measure import check_integer

__all__ = ["LOGME", "log_maximum_evidence", "logme"]

# Bounds of alpha / beta on features of largest singular value 1. Beyond them the evidence no longer changes: a model
# without weights above, one without noise below.
_LOW, _HIGH = 1e-12, 1e12


def log_maximum_evidence(features: Numbers, targets: Numbers, *, iterations: int = 1000) -> Numbers:
    """max over alpha, beta of ln p(y | F, alpha, beta) / N, y = F w + noise, w ~ N(0, 1/alpha), noise ~ N(0, 1/beta).

    The fixed point of MacKay, iterated until alpha / beta stands still: gamma = sum of beta s_i / (alpha + beta s_i),
    alpha = gamma / |m|^2, beta = (N - gamma) / |F m - y|^2, with s_i the squared singular values of F and m the
    posterior mean. Scaling F changes nothing.

    Args:
        features: F, finite, (N, D).
        targets: y, one column a target, (N, T).

    Returns:
        (T,), in nats a row, float64. Infinite for a target that is fitted exactly by a constraint-free model (a column
        of zeros, say).
    """
    rows, columns = features.shape
    left, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    kept = singular > max(rows, columns) * np.finfo(np.float64).eps * max(float(singular.max(initial=0.0)), 1e-300)
    squared = ((singular[kept] / singular[kept].max(initial=1e-300)) ** 2)[:, None]
    inside = (left[:, kept].T @ targets) ** 2  # (rank, T)
    outside = np.maximum((targets**2).sum(axis=0) - inside.sum(axis=0), 0.0)
    ratio = np.ones(targets.shape[1])
    for _ in range(iterations):
        shrink = squared / (ratio + squared)
        gamma = shrink.sum(axis=0)
        length = (squared * inside / (ratio + squared) ** 2).sum(axis=0)  # |m|^2
        residual = ((1 - shrink) ** 2 * inside).sum(axis=0) + outside
        with np.errstate(divide="ignore", invalid="ignore"):
            proposed = gamma * residual / (length * (rows - gamma))
        proposed = np.clip(np.nan_to_num(proposed, nan=1.0, posinf=_HIGH), _LOW, _HIGH)
        still = np.abs(np.log(proposed / ratio)) < 1e-10
        ratio = proposed
        if still.all():
            break
    # At a given ratio the best noise level is known; there |F m - y|^2 beta + |m|^2 alpha = N.
    energy = (inside * ratio / (ratio + squared)).sum(axis=0) + outside
    with np.errstate(divide="ignore"):
        noise = -np.log(energy / rows)
    evidence = rows / 2 * (noise - 1 - np.log(2 * np.pi)) - 0.5 * np.log1p(squared / ratio).sum(axis=0)
    return np.asarray(evidence / rows, dtype=np.float64)


def logme(material: Material, *, draws: int = 20, seed: int = 0) -> Reading:
    """s(k) = mean over classes of the log maximum evidence of the one-hot labels, on pooled outputs of block k.

    Features are taken as they come, neither centred nor scaled, as in the paper. All probe images are used.

    Source: You et al. 2021, LogME, arXiv 2102.11005. Range: unbounded, in nats an image; higher is better.
    Reading: as for `linear_probe`: the score of depth k is what a linear model can make of what the first k blocks put
    out (s(0): of the pooled image), so the prior's mode is the curve's highest point. Unlike accuracy it needs no
    held-out images: it counts the number of directions that it uses.
    Null: permuted labels.
    Cost: one forward pass of all images.

    Args:
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L+1,). NaN for a depth with features that are not finite or are all zero.
    """
    check_integer("draws", draws, 2)
    labels = np.unique(material.labels.numpy(), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    orders = np.vstack([np.arange(len(labels)), [rng.permutation(len(labels)) for _ in range(draws)]])
    one_hot: NDArray[np.float64] = np.eye(int(labels.max()) + 1)[labels[orders]]  # (1 + D, N, K)
    targets = one_hot.transpose(1, 0, 2).reshape(len(labels), -1)
    rows = np.full((3, len(material.blocks) + 1), np.nan)
    notes = []
    for depth, features in enumerate(material.depth_features):
        found = features.double().numpy()
        if not np.isfinite(found).all() or not found.any():
            notes.append(f"freeze depth {depth}: features are not finite or all zero")
            continue
        evidence = log_maximum_evidence(found, targets).reshape(1 + draws, -1).mean(axis=1)
        rows[:, depth] = (evidence[0], *mean_and_spread(evidence[1:]))
    return Reading(rows[0], rows[1], rows[2], tuple(notes))


LOGME = Scorer("logme", "depth", logme, needs=("before",))
