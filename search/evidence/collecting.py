"""Collects the evidence of a task before its study begins: one probe fine-tuning, one shared pass, every scorer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from explain.evidence import SCORERS, Cost, Material, Pass, Scores, depth_scores
from explain.evidence.registry import ALIASES, USES
from explain.evidence.scores import Numbers
from search.evidence.calibration import BLIND, PARTS, load
from search.evidence.probe import collect_material, probe_rows
from search.evidence.record import Evidence, ScorerEvidence, TypicalMaps, prior_mode
from search.evidence.similarity import Similarity, measure_similarity
from search.trial.space import build_space
from search.trial.task import Task

__all__ = ["collect_evidence", "evidence_from_material"]

_SHOWN_SIDE = 32  # cells of a typical map at most


def collect_evidence(
    task: Task,
    *,
    again: bool = False,
    on_note: Callable[[str], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Evidence | None:
    """Run the probe fine-tuning and every scorer that has its material.

    Args:
        task: images, splits, network and settings; the seed is `settings.seed`.
        again: whether to fine-tune a second time from another seed, for `agreement_of_change`.
        on_note: called with one line that says why there is no evidence.
        cancelled: asked before every batch of the fine-tuning; True raises `TrialCancelledError`.

    Returns:
        The evidence; that of the priors which look at no image where they suffice and there is no other. None where
        nothing is asked for, the freeze depth is not searched, or the network has no trained weights; for other priors
        also where the head is not warmed up, or fewer than two classes have both training and validation images.
    """
    search = task.settings.search
    if not search.evidence and search.prior == "uniform":
        return None
    low, high = build_space(task.settings.space, task.net).freeze_depth
    if not task.net.pretrained:
        on_note("No evidence: random weights have nothing to freeze.")
        return None
    if low == high:
        on_note(f"No evidence: the only freeze depth is {low}.")
        return None
    blind = search.prior in BLIND
    if not search.evidence and blind:
        return _without_images(task)
    training, validation = probe_rows(task)
    why = ""
    if not task.settings.trainer.warmup:
        why = "maps of a random head mean nothing (trainer.warmup=false)"
    elif len(np.unique(task.index.labels[training])) < 2:
        why = "fewer than two classes have training and validation images"
    if why:
        on_note(f"No evidence: {why}; depths are {f'by {search.prior}' if blind else 'left to the sampler'}.")
        return _without_images(task) if blind else None
    similarity = None
    if USES.get(search.prior) == "similarity":
        similarity = measure_similarity(task, np.concatenate([training, validation]))
        if not search.evidence:
            return _without_images(task, similarity)
    material = collect_material(task, training, validation, again=again, cancelled=cancelled)
    return evidence_from_material(task, material, training, validation, similarity=similarity)


def _without_images(task: Task, similarity: Similarity | None = None) -> Evidence:
    """What the scorers say that look at no image."""
    none, rows = torch.zeros(0), np.zeros(0, np.int64)
    nothing = Material(task.net.block_names, none.long(), none.bool(), "", none, Pass((), none))
    return evidence_from_material(task, nothing, rows, rows, similarity=similarity)


def evidence_from_material(
    task: Task,
    material: Material,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    *,
    similarity: Similarity | None = None,
) -> Evidence:
    """Every scorer that has its material, and the prior that `search.prior` asks for.

    Args:
        training: probe rows in training.
        validation: probe rows in validation, in the material's order after those in training.
        similarity: what the advisor goes by; None leaves it out.
    """
    calibration = load()
    settings = task.settings
    depths = build_space(settings.space, task.net).freeze_depth
    blocks = task.net.block_names
    scores: dict[str, Scores] = {}
    s: dict[str, Numbers] = {}
    notes: dict[str, tuple[str, ...]] = {}
    known: dict[str, Any] = {
        "table": calibration.static(len(blocks)),
        **(similarity.options() if similarity is not None else {}),
    }
    for scorer in SCORERS.values():
        if scorer.can_read(material) and all(option in known for option in scorer.options):
            scores[scorer.name] = scorer(material, **{option: known[option] for option in scorer.options})
            by_depth = depth_scores(scores[scorer.name])
            s[scorer.name], notes[scorer.name] = by_depth.values, by_depth.notes
    own = {
        name: found.cost.seconds - sum(material.costs[part].seconds for part in SCORERS[name].needs)
        for name, found in scores.items()
    }
    if parts := [name for name in PARTS if name in scores]:
        scores["evidence"] = _combination(material, calibration.combined(s), parts, own)
        s["evidence"] = scores["evidence"].values
    made = {}
    measured = similarity.cost if similarity is not None else Cost()
    for name, found in scores.items():
        prior = calibration.prior(name, s, settings.search.prior_floor)
        made[name] = ScorerEvidence(
            name=name,
            kind=found.kind,
            values=found.values,
            null_mean=found.null_mean,
            null_spread=found.null_spread,
            z=found.z,
            depth_scores=s[name],
            probabilities=prior.probabilities,
            preferred=prior_mode(prior.probabilities, *depths),
            cost=found.cost + (measured if USES.get(name) == "similarity" else Cost()),
            notes=(*found.notes, *notes.get(name, ()), *prior.notes),
        )
    chosen = ALIASES.get(settings.search.prior, settings.search.prior)
    depth_count = len(blocks) + 1
    probabilities = np.full(depth_count, 1 / depth_count) if chosen == "uniform" else made[chosen].probabilities
    return Evidence(
        blocks=blocks,
        scorers=MappingProxyType(made),
        depths=depths,
        prior=chosen,
        probabilities=probabilities,
        preferred=prior_mode(probabilities, *depths),
        cost=material.cost + Cost(sum(own.values())) + measured,
        training_rows=training,
        validation_rows=validation,
        maps=_typical_maps(material, validation) if len(validation) else None,
        notes=() if chosen == "uniform" else calibration.without_weight(chosen),
    )


def _combination(material: Material, s: Numbers, parts: list[str], own: Mapping[str, float]) -> Scores:
    """The combination as a scorer of depths without a null."""
    needs = sorted({need for name in parts for need in SCORERS[name].needs})
    cost = sum((material.costs[need] for need in needs), Cost(sum(own[name] for name in parts)))
    unknown = np.full(len(s), math.nan)
    return Scores(s, unknown, unknown, scorer="evidence", kind="depth", blocks=material.blocks, cost=cost)


def _typical_maps(material: Material, validation: NDArray[np.int64]) -> TypicalMaps:
    labels = material.labels[~material.training]
    label = int(labels.bincount().argmax())
    members = labels == label
    mean, example = [], []
    for record in material.before.records:
        maps = record.cam[~material.training][members]
        height, width = (min(side, _SHOWN_SIDE) for side in maps.shape[1:])
        maps = adaptive_avg_pool2d(maps[None], (height, width))[0]
        mean.append(_bytes(maps.mean(dim=0)))
        example.append(_bytes(maps[0]))
    return TypicalMaps(label, int(validation[members.numpy()][0]), tuple(mean), tuple(example))


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    """Scaled so that the greatest value is 255."""
    scaled = values * (255 / values.max().clamp(min=torch.finfo(values.dtype).tiny))
    return scaled.round().clamp(0, 255).to(torch.uint8).numpy()
