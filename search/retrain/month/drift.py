"""Step 2: the champion on the month before anything is trained: its scores, and what changed since it was made.

Every p-value is from the same random permutations: which images are old and which are new is drawn again, whole groups
at a time, and each statistic computed anew, so ties, rare classes and images of one plate need no approximation. n
images in both samples, L blocks, P permutations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from explain.evidence.train_validation_disagreement import kolmogorov_smirnov
from lightning_modules.images.split_units import Rows, Units
from lightning_modules.training.scores import scores_with_intervals
from search.retrain.month.baseline import MEASURES, Baseline
from search.retrain.month.context import MonthContext
from search.retrain.month.decisions import MonthDecisions, measure_decisions
from search.retrain.month.images import features, probabilities
from search.retrain.month.record import SCALARS, BlockShift, Drift, Shift
from search.significance import chi_square, holm, memberships, permutation_p_value, squared_mmd

__all__ = ["compare_drift", "look_at_champion"]

Numbers = NDArray[np.float64]
Members = NDArray[np.bool_]


def look_at_champion(context: MonthContext) -> dict[str, Any]:
    """Scores of the champion, and drift, on images it was not trained on; both annotate, neither gates."""
    plan = context.plan
    drift: Drift | None = None
    old = context.old_baseline()
    if len(context.trainable) >= 2:
        drift = compare_drift(old, context.month_baseline, seed=context.settings.seed)
    scores, lines = _champion_scores(context, plan.unseen)
    lines += drift.lines() if drift else []
    decisions = _decisions(context, plan.unseen)
    lines += decisions.lines() if decisions else []
    return {
        "scores": scores, "images": len(plan.unseen), "drift": drift and drift.to_json(),
        "decisions": decisions and decisions.to_json(), "lines": lines,
    }  # fmt: skip


def _decisions(context: MonthContext, rows: Rows) -> MonthDecisions | None:
    """How far what the champion had promised holds on images of the month that it was not trained on."""
    index, seed = context.images.index, context.settings.seed
    if not len(rows):
        return None
    answers = probabilities(context.champion_net, context.images, rows)
    groups = Units(index, seed).of[rows]
    model = context.champion.model
    computed = None if model.reference is None else features(context.champion_net, context.images, rows)
    return measure_decisions(model, answers, index.classes, index.labels[rows], groups, features=computed, seed=seed)


def _champion_scores(context: MonthContext, rows: Rows) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """Scores of the champion on images of the month with their intervals, and in words."""
    index, who = context.images.index, f"Champion, version {context.champion.version}"
    if not len(rows):
        return {}, [f"{who}: it was trained on every image of the month, so it is not judged on them."]
    answers = torch.from_numpy(probabilities(context.champion_net, context.images, rows)).clamp_min(1e-30).log()
    scores = scores_with_intervals(answers, torch.from_numpy(index.labels[rows]), index.classes)
    accuracy, (low, high) = scores.values["accuracy"], scores.intervals["accuracy"]
    of = "images of the month"
    if known := len(context.plan.month) - len(rows):
        of += f" that it was not trained on ({known} others it was)"
    lines = [f"{who}: accuracy {accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}) on {len(rows)} {of}."]
    if known := _of_known_groups(context, rows):
        lines.append(f"{known} of these show a group that the champion was trained on, so its scores may be too high.")
    return {n: (scores.values[n], *scores.intervals[n]) for n in scores.intervals}, lines


def _of_known_groups(context: MonthContext, rows: Rows) -> int:
    """How many of the images at `rows` are of a coil, plate or tile of which other images trained the champion."""
    records = context.images.index.records
    known = {record.group for record in records if record.group and record.digest in context.champion.trained_on}
    return sum(records[r].group in known for r in rows.tolist())


def compare_drift(baseline: Baseline, new: Baseline, *, seed: int = 0, permutations: int = 500) -> Drift:
    """Compare two samples as the same champion shows them.

    MMD² is the unbiased estimate with a Gaussian kernel exp(-|x - y|² / (2 h²)), h the median distance of all pairs
    (Gretton et al. 2012, JMLR 13). Where images of one group are alike, only whole groups are permuted.

    Args:
        permutations: P, >= 99; p-values cannot be below 1 / (P + 1).

    Raises:
        ValueError: other blocks or features, fewer than two images in one of them, or too few permutations.
    """
    if baseline.blocks != new.blocks or baseline.features.shape[1:] != new.features.shape[1:]:
        raise ValueError(f"new must be of the same network ({', '.join(baseline.blocks)}), got {', '.join(new.blocks)}")
    if min(len(baseline), len(new)) < 2:
        raise ValueError(f"both samples must hold at least 2 images, got {len(baseline)} and {len(new)}")
    if permutations < 99:
        raise ValueError(f"permutations must be at least 99, got {permutations}")
    groups = np.concatenate([baseline.groups, new.groups + baseline.groups.max() + 1])
    is_new = np.arange(len(groups)) >= len(baseline)
    members = memberships(groups, is_new, permutations, np.random.default_rng(seed))

    names = list(dict.fromkeys([*baseline.counts, *new.counts]))
    labels = [names.index(one.classes[label]) for one in (baseline, new) for label in one.labels]
    found: dict[str, tuple[Numbers, float, float]] = {
        "features": (squared_mmd(np.concatenate([baseline.features, new.features]), members), math.nan, math.nan),
        "label_mix": (chi_square(np.array(labels), members), math.nan, math.nan),
    }
    for name in SCALARS:
        old, recent = (getattr(one, name).astype(np.float64) for one in (baseline, new))
        draws = kolmogorov_smirnov(np.concatenate([old, recent]), members)
        found[name] = (draws, float(old.mean()), float(recent.mean()))
    p_values = [permutation_p_value(draws) for draws, _, _ in found.values()]
    shifts = tuple(
        Shift(name, float(draws[0]), p, adjusted, old, recent)
        for (name, (draws, old, recent)), p, adjusted in zip(found.items(), p_values, holm(p_values), strict=True)
    )
    return Drift(
        images=(len(baseline), len(new)),
        groups=(len(np.unique(baseline.groups)), len(np.unique(new.groups))),
        permutations=permutations,
        shifts=shifts,
        blocks=_block_shifts(baseline, new, members),
        counts={name: (baseline.counts.get(name, 0), new.counts.get(name, 0)) for name in names},
    )


def _block_shifts(baseline: Baseline, new: Baseline, members: Members) -> tuple[BlockShift, ...]:
    statistics, p_values = [], []
    for number in range(len(baseline.blocks)):
        by_measure = []
        for name in MEASURES:
            both = np.concatenate([one.measures[name][number] for one in (baseline, new)])
            # All measures are >= 0; a dead map is beyond the least of them, so that dying maps are a shift.
            values: Numbers = np.nan_to_num(both.astype(np.float64), nan=-1.0)
            by_measure.append(kolmogorov_smirnov(values, members))
        statistics.append({name: float(draws[0]) for name, draws in zip(MEASURES, by_measure, strict=True)})
        p_values.append(permutation_p_value(np.max(by_measure, axis=0)))
    return tuple(
        BlockShift(block, max(one.values()), p, adjusted, one)
        for block, one, p, adjusted in zip(baseline.blocks, statistics, p_values, holm(p_values), strict=True)
    )
