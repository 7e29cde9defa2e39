"""Champion against challenger on images that neither was trained on, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.training.scores import exact_interval
from search.retrain.month.answers import probabilities
from search.retrain.month.baseline import Baseline
from search.retrain.month.comparison import Comparison, Decision, compare, decide
from search.retrain.month.drift import Drift
from search.retrain.month.probe import beyond_chance, month_probe
from search.tracking.models import resolve_model

if TYPE_CHECKING:
    from lightning_modules.networks.blocknet import BlockNet
    from search.retrain.month.run import MonthRun

__all__ = ["compare_models"]

_FEWEST = 12  # held-out images from which labels that nobody can learn are told from bad luck
_PERMUTATIONS, _LEVEL = 499, 0.05
_NOISE = (
    "this month's labels fit neither model better than labels dealt at random; it is not trained on by later months "
    "either: see how it was labelled"
)


def compare_models(run: MonthRun, searched: dict[str, Any]) -> dict[str, Any]:
    """Both models on the same held-out images: of the newest months, of the regression set, and of other months.

    A month whose labels have nothing to do with what champion or challenger see in its images, as far as its held-out
    images can tell, is not trained on by later months: its labels are noise, or its images are not of this task.

    Args:
        run: the month.
        searched: result of the step before.

    Returns:
        `newest`, `regression`, `others` (comparisons as plain values, or None), `decision`, `outcome`, `reason`,
        `usable`, `cautions`, and `numbers` for the ledger.
    """
    plan, settings = run.plan, run.session.settings
    sets = {"newest": plan.newest, "regression": plan.regression, "others": plan.others}
    old = {name: probabilities(run.champion_net, run.images, rows) for name, rows in sets.items() if len(rows)}
    labels = {name: run.images.index.labels[rows] for name, rows in sets.items()}
    winner = searched.get("winner")
    numbers: dict[str, Any] = {"newest_images": len(plan.newest), "newest_months": list(plan.newest_months)}
    numbers |= {"regression_images": len(plan.regression), "others_images": len(plan.others)}
    cautions: list[str] = []
    for name, answers in old.items():
        numbers |= _accuracy(_called(name, "before"), answers, labels[name])
    if winner is None:
        outcome, promoted, usable = "not needed", False, True
        decision = Decision(False, f"champion kept: {searched['skipped']}{_on_newest(numbers)}")
        comparisons: dict[str, Comparison | None] = dict.fromkeys(sets)
        new = old
    else:
        name = f"models:/{run.session.model_name}/{winner['version']}"
        net = resolve_model(name, settings.tracking.root).net.to(run.session.device)
        new = {name: probabilities(net, run.images, sets[name]) for name in old}
        comparisons = {
            name: compare(old[name], new[name], labels[name], classes=run.classes, seed=settings.seed)
            if name in old
            else None
            for name in sets
        }
        usable = _labels_mean_something(run, net)
        decision = _decide(comparisons, settings.retrain.margin, settings.retrain.guard)
        if not usable:
            cautions.append(_NOISE)
            decision = Decision(False, f"champion kept: {_NOISE}", (*decision.checks, (_NOISE, False)))
        promoted = decision.promote
        outcome = "promoted" if promoted else "kept"
    for name, answers in (new if promoted else old).items():
        numbers |= _accuracy(_called(name, "after"), answers, labels[name])
    if winner is not None and "newest" in new:
        numbers |= _accuracy("challenger_accuracy", new["newest"], labels["newest"])
    return {
        **{name: one and one.to_json() for name, one in comparisons.items()},
        "decision": decision.to_json(), "outcome": outcome, "reason": decision.reason, "usable": usable,
        "cautions": cautions, "numbers": numbers,
    }  # fmt: skip


def _labels_mean_something(run: MonthRun, challenger: BlockNet) -> bool:
    """Whether the month's own labels fit what either model answers better than labels dealt at random.

    The champion is asked about all images of the month that it was not trained on, the challenger about the held-out
    ones. Where both fail and the images are not what they were, they may fail for that: then linear classifiers on the
    champion's blocks are asked, the best of them against the best under labels dealt at random. Of fewer than twelve
    held-out images nothing is known, and they are believed.
    """
    own, labels = run.plan.own, run.images.index.labels
    if len(own) < _FEWEST:
        return True
    rng = np.random.default_rng(run.session.settings.seed)
    unseen = run.plan.unseen
    answers = probabilities(run.champion_net, run.images, unseen).argmax(1)
    if _associated(answers, labels[unseen], rng):
        return True
    if _associated(probabilities(challenger, run.images, own).argmax(1), labels[own], rng):
        return True
    return _learnable(run, rng)


def _learnable(run: MonthRun, rng: np.random.Generator) -> bool:
    """Whether the month's images moved and some block of the champion still tells their labels (`month_probe`)."""
    look = run.session.ledger.steps(run.row)["look"][0]
    if not look["drift"]:
        return False
    drift = Drift.from_json(look["drift"])
    if not (drift["features"].seen or any(block.seen for block in drift.blocks)):
        return False
    old, new = run.old_baseline(), Baseline.load(run.month_baseline)
    seed = run.session.settings.seed
    answers = [month_probe(old, new, block, seed=seed) for block in range(len(old.blocks))]
    known = [one for one in answers if one is not None]
    return bool(known) and beyond_chance(known, new.labels, rng)


def _associated(answers: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator) -> bool:
    """Whether answers and labels have anything to do with each other: chi-square of their table, labels permuted, 5 %.

    Answers that are all wrong, but each class wrong in its own way, do: black and white may be exchanged.
    """
    size = int(max(answers.max(), labels.max())) + 1
    expected = np.outer(np.bincount(answers, minlength=size), np.bincount(labels, minlength=size)) / len(labels)

    def statistic(dealt: NDArray[np.int64]) -> float:
        table = np.bincount(answers * size + dealt, minlength=size**2).reshape(size, size)
        return float(((table - expected) ** 2 / np.maximum(expected, 1e-12)).sum())

    found = statistic(labels)
    drawn = [statistic(rng.permutation(labels)) for _ in range(_PERMUTATIONS)]
    return (1 + sum(one >= found - 1e-9 for one in drawn)) / (1 + _PERMUTATIONS) < _LEVEL


def _decide(found: dict[str, Comparison | None], margin: float, guard: float) -> Decision:
    newest = found["newest"]
    if newest is None:
        return Decision(False, "champion kept: no image of the newest months is held out, so nothing can be compared")
    return decide(newest, found["regression"], found["others"], margin=margin, guard=guard)


def _called(name: str, when: str) -> str:
    return f"accuracy_{when}" if name == "newest" else f"{name}_{when}"


def _accuracy(name: str, answers: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Share of right answers with its exact 95 % interval."""
    right = int((answers.argmax(1) == labels).sum())
    low, high = exact_interval(right, len(labels))
    return {name: right / len(labels), f"{name}_low": low, f"{name}_high": high}


def _on_newest(numbers: dict[str, Any]) -> str:
    if "accuracy_before" not in numbers:
        return ""
    return f"; accuracy {numbers['accuracy_before']:.1%} on {numbers['newest_images']} held-out images"
