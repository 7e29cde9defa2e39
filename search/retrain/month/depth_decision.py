"""Step 3: how deep to retrain the champion for a month: nothing, the head, from block k on, or a full search.

The rule was fixed before its results were seen. The champion takes the place of the pre-trained network; it was trained
on neither sample. n1 new images, L blocks.

*What is looked at.*
- r: share of the old images that the champion has right; a: the same of the new ones.
- loss shown: the 95 % interval of r - a lies above 0 (Newcombe's, from two Wilson intervals).
- probe(k): a linear classifier on the pooled output of block k, trained on old images and on new ones (each as a whole
  weighing the same), judged on the other new images (5 folds): what can still be read from block k in the new month.
- reach = max(a, probe(L)): what a new head on the champion's blocks reaches, at least.
- growth: images that may be trained on now, beyond those the champion was trained on, as a share of the latter.
- shift: the champion's maps moved in block k (`record.BlockShift`: largest KS distance of entropy, area and dispersion,
  by permutation, Holm over the blocks, 5 %); features: the MMD test of the penultimate features.

*The rule*, the first that applies:
1. fewer than 10 new images: **none**; that is too few to decide.
2. neither the champion nor a probe is beyond chance on the new images (labels permuted, 5 %): **search**, since nothing
   of the champion helps.
3. no loss shown, and growth >= 0.25: **thaw** at the champion's own freeze depth (**head** where that is L). More
   images make a better model with or without drift, and the champion's search has already found the depth.
4. no loss shown, and no shift of maps or features shown: **none**.
5. reach >= r - 0.02: **head**. It costs next to nothing, so it is also the answer to a shift without loss.
6. otherwise **thaw**: freeze the blocks before the first one whose maps moved. Where none did: freeze up to the
   deepest block whose probe is within 0.02 of the best, and the last block is thawed in any case.

In a month with a class that the champion does not know, **none** becomes **head**, since the head has to learn the
class. Images of it count as a loss anyway, because the champion cannot have them right.

*Why so.* Accuracies decide whether anything is trained and whether the head is enough: they are what retraining is for.
The maps only say which blocks, since an evaluation on many tasks found no advantage of map evidence over trivial rules
(docs/results.md). Training from the first changed block follows surgical fine-tuning (Lee et al. 2022, arXiv
2210.11466). Two points of accuracy are two images in a hundred, less than a month can show; a wrong "head" costs
little, since the promotion test follows and the next month decides again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from search.retrain.month.baseline import Baseline
from search.retrain.month.context import MonthContext
from search.retrain.month.probe import beyond_chance, month_probe
from search.retrain.month.record import Action, BlockFinding, DepthDecision, Drift
from search.significance import newcombe_interval

__all__ = ["decide", "decide_depth"]

Labels = NDArray[np.int64]

_FEWEST = 10
_EQUAL = 0.02
_GROWN = 0.25


def decide_depth(context: MonthContext) -> dict[str, Any]:
    """What `retrain.depth` asks for, or what the rule says of the step before."""
    setting, deepest = context.settings.retrain.depth, context.champion_net.deepest
    if setting.isdigit() and int(setting) > deepest:
        raise InputError(
            f"retrain.depth must be auto, none, head, search or in 0..{deepest} for the champion, got {setting}"
        )
    if setting != "auto":
        action = "thaw" if setting.isdigit() else setting
        depth = {"head": deepest, "thaw": int(setting) if setting.isdigit() else None}.get(action)
        return {"action": action, "depth": depth, "reason": f"retrain.depth={setting}", "decision": None}
    look = context.results["look"]
    if look["drift"] is None:
        reason = "fewer than two images of the month may be trained on that the champion was not trained on already"
        return {"action": "none", "depth": None, "reason": reason, "decision": None}
    digests = [context.images.index.records[r].digest for r in context.plan.pool.tolist()]
    growth = sum(digest not in context.champion.trained_on for digest in digests) / max(1, context.champion.trained)
    decision = decide(
        context.old_baseline(),
        context.month_baseline,
        Drift.from_json(look["drift"]),
        new_classes=context.check.new_classes,
        growth=growth,
        lineage_depth=context.champion.lineage_depth,
        seed=context.settings.seed,
    )
    # With an attention branch the head's training begins behind the block that the branch looks at.
    depth = None if decision.depth is None else min(decision.depth, deepest)
    found = {"action": decision.action, "depth": depth, "reason": decision.reason}
    return {**found, "decision": decision.to_json()}


def decide(
    old: Baseline,
    new: Baseline,
    drift: Drift,
    *,
    new_classes: Sequence[str] = (),
    growth: float = 0.0,
    lineage_depth: int | None = None,
    seed: int = 0,
) -> DepthDecision:
    """Apply the rule above.

    Args:
        new: the new month as the champion shows it: images that may be trained on, never those of the promotion test.
        new_classes: classes of the month that the champion does not know.
        growth: images that may be trained on now and that the champion was not trained on, divided by those it was
            trained on, >= 0.
        lineage_depth: freeze depth that the champion was trained with, 0..L; None is taken for L.

    Raises:
        ValueError: a growth or depth out of range.
    """
    blocks = len(old.blocks)
    kept = blocks if lineage_depth is None else lineage_depth
    if not growth >= 0:
        raise ValueError(f"growth must be >= 0, got {growth}")
    if not 0 <= kept <= blocks:
        raise ValueError(f"lineage_depth must be in 0..{blocks}, got {lineage_depth}")
    rng = np.random.default_rng(seed)
    r, a = old.right / len(old), new.right / len(new)
    loss = newcombe_interval(old.right, len(old), new.right, len(new))
    answers = {block: month_probe(old, new, number, seed=seed) for number, block in enumerate(old.blocks)}
    probes = {block: _share(answer, new.labels) for block, answer in answers.items()}
    by_block = {
        shift.block: BlockFinding(shift.statistic, shift.adjusted, shift.seen, probes[shift.block])
        for shift in drift.blocks
    }
    informed = any(
        beyond_chance([answer], new.labels, rng)
        for answer in (new.predicted, *(one for one in answers.values() if one is not None))
    )
    last = probes[old.blocks[-1]]
    reach = a if math.isnan(last) else max(a, last)
    facts = _Facts(by_block, drift["features"].seen, r, a, loss, reach, informed, len(new), growth, kept)
    action, depth, reason, by_maps = _rule(facts)
    if new_classes:
        reason = f"new to the champion: {', '.join(new_classes)}; {reason}"
        if action == "none":
            action, depth, reason = "head", blocks, f"{reason}; the head has to learn it"
    return DepthDecision(
        action=action,
        depth=depth,
        reason=reason,
        by_block=by_block,
        reference=r,
        reference_images=len(old),
        accuracy=a,
        images=len(new),
        loss=loss,
        features_p=drift["features"].adjusted,
        new_classes=tuple(new_classes),
        by_maps=by_maps,
    )


@dataclass(frozen=True)
class _Facts:
    by_block: Mapping[str, BlockFinding]
    features_moved: bool
    r: float
    a: float
    loss: tuple[float, float, float]
    reach: float
    informed: bool
    images: int
    growth: float
    lineage_depth: int


def _rule(facts: _Facts) -> tuple[Action, int | None, str, bool]:
    """Action, depth, reason, and whether the maps chose that depth."""
    by_block, reach, names = facts.by_block, facts.reach, list(facts.by_block)
    moved = [name for name, block in by_block.items() if block.moved]
    now = f"{facts.a:.1%} of {facts.images} new images right against {facts.r:.1%} of older ones"
    if facts.images < _FEWEST:
        return "none", None, f"{facts.images} new images decide nothing; at least {_FEWEST} are needed", False
    if not facts.informed:
        return (
            "search",
            None,
            f"{now}: neither the champion nor a classifier on any of its blocks is beyond chance",
            False,
        )
    shown = facts.loss[1] > 0
    changed = [f"maps of {', '.join(moved)} moved"] if moved else []
    changed += ["the champion's features moved"] if facts.features_moved else []
    fell = f"{now}, {'a loss' if shown else 'no loss shown'} ({_points(facts.loss)})"
    said = " and ".join(changed) or "no shift of maps or features is shown"
    if not shown and facts.growth >= _GROWN:
        depth = facts.lineage_depth
        grown = f"{fell}; {facts.growth:.0%} more images to train on than the champion had: its freeze depth is kept"
        return ("head" if depth == len(names) else "thaw"), depth, grown, False
    if not shown and not changed:
        return "none", None, f"{fell}; {said}", False
    regains = f"a new head on the champion's blocks reaches {reach:.1%}"
    if reach >= facts.r - _EQUAL:
        return "head", len(names), f"{fell}; {said}; {regains}, so the blocks can stay", False
    lacks = f"{fell}; {said}; {regains} only"
    if moved:
        depth = names.index(moved[0])
        return "thaw", depth, f"{lacks}, so blocks are trained from the first one whose maps moved, {moved[0]}", True
    known = [block.probe for block in by_block.values() if not math.isnan(block.probe)]
    best = max(known, default=math.nan)
    good = [k + 1 for k, name in enumerate(names) if by_block[name].probe >= best - _EQUAL]
    depth = min(max(good, default=len(names) - 1), len(names) - 1)
    return (
        "thaw",
        depth,
        f"{lacks}; no block's maps say where, so what can be read from the blocks does: {names[depth]}",
        False,
    )


def _share(answers: Labels | None, labels: Labels) -> float:
    return math.nan if answers is None else float((answers == labels).mean())


def _points(loss: tuple[float, float, float]) -> str:
    value, low, high = (round(100 * -x, 1) + 0.0 for x in (loss[0], loss[2], loss[1]))  # no -0.0
    return f"{value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
