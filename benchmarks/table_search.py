"""One search on a depth table: the driver, sampler, space and promotion rule of `python -m search`, trials looked up.

Parameters that are not in the table take the curve of the nearest ones that are: the same freeze depth and optimizer,
and the learning-rate factor nearest on a log scale (of two, the lower). The optimizers searched are those of the table;
all other settings are the defaults of a search, but for what a strategy changes.

A search pays for the epochs it takes (in epochs of training everything, with the frozen prefix paid once a depth and
the evidence once a study), and its incumbent is the trial with the best validation score so far. What counts is the
*quality* of the incumbent: its mean test score over the splits that the search does not see, since one split's test
images cannot tell two good configurations apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from benchmarks.finished_tables import DepthTable, Floats
from benchmarks.table_executor import SilentListener, SilentTracker, Spent, TableExecutor
from explain.evidence import Cost
from lightning_modules.networks.blocknet import BlockNet
from search.evidence.record import Evidence, ScorerEvidence, prior_mode
from search.settings.schema import Settings
from search.study.driver import SearchStudy
from search.study.progress import StudyListener
from search.study.promotion import PromotionRule
from search.study.record import StudyRecord
from search.trial.result import TrialParams
from search.trial.space import build_space

__all__ = ["TRIALS", "Hint", "Replay", "Strategy", "block_evidence", "replay"]

TRIALS = 30
_FREE = Cost(0.0, 0, 0)


@dataclass(frozen=True, eq=False)
class Hint:
    """What a search knows before it begins.

    Attributes:
        probabilities: prior of the freeze depths, (depths,), together 1; None leaves them to the sampler.
        cost: of finding that, in epochs of training everything.
        scorers: evidence by block, which `search.trust=evidence` reads.
    """

    probabilities: Floats | None = None
    cost: float = 0.0
    scorers: Mapping[str, ScorerEvidence] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """One way to search.

    Attributes:
        name: for tables.
        search: settings of `search.*` that differ from the defaults.
        freeze_depth: range of depths; None for all.
        hint: for (table, split), or None.
        batches: training steps in an epoch, which decide on the first rung; None for those of the table.
        pruner: one of Optuna's that no setting names, with `search.pruner=none`.
        rule: a promotion rule that no setting names, in place of the driver's own.
        space: settings of `space.*` that differ from those of the committed results (momentum first, one depth).
        sampler: one of Optuna's that no setting names, of a seed.
    """

    name: str
    search: Mapping[str, Any] = field(default_factory=dict)
    freeze_depth: tuple[int, int] | None = None
    hint: Callable[[DepthTable, int], Hint] | None = None
    batches: int | None = None
    pruner: Callable[[], BasePruner] | None = None
    rule: Callable[[DepthTable], PromotionRule] | None = None
    space: Mapping[str, Any] = field(default_factory=dict)
    sampler: Callable[[int], BaseSampler] | None = None


@dataclass(frozen=True, eq=False)
class Replay:
    """What one search did.

    Attributes:
        cost: paid until the end of each piece of training, ascending.
        quality: of the incumbent after each.
        winner: quality of the winner.
        depths: freeze depth of each trial, in order.
        whole: (freeze depth, best validation score, quality) of each trial that ran its full length.
        won: slot of the winner.
    """

    cost: Floats
    quality: Floats
    winner: float
    depths: tuple[int, ...] = ()
    whole: tuple[tuple[int, float, float], ...] = ()
    won: int = 0


def block_evidence(name: str, scores: Floats) -> ScorerEvidence:
    """Evidence that says this of each block above its null, (L,), and nothing else."""
    unknown, depths = np.full(len(scores), np.nan), np.full(len(scores) + 1, np.nan)
    return ScorerEvidence(name, "block", scores, np.zeros(len(scores)), unknown, unknown, depths, depths, 0, _FREE)


def replay(
    table: DepthTable,
    strategy: Strategy,
    split: int,
    seed: int,
    trials: int = TRIALS,
    listener: StudyListener | None = None,
) -> Replay:
    """Search on one split of a table.

    Args:
        table: the curves.
        strategy: how to search.
        split: place of the split in the table.
        seed: 0..999; searches of a split with the same seed draw alike.
        trials: of the study.
        listener: called for everything that happens.
    """
    hint = strategy.hint(table, split) if strategy.hint else Hint()
    executor = TableExecutor(
        lambda params: table.val[(split, *_place(table, params))],
        lambda depth: float(table.epoch_cost[depth]),
        lambda depth: float(table.prefix_cost[depth]),
        losses=None if (lost := table.loss) is None else lambda params: lost[(split, *_place(table, params))],
        paid=hint.cost,
    )
    study = _run(table, strategy, hint, _settings(table, strategy, 1000 * split + seed, trials), executor, listener)
    truth = table.test[table.without(split)].mean(0)

    def quality(params: TrialParams, epoch: int) -> float:
        return float(truth[(*_place(table, params), epoch)])

    found, winner = study.finished(), study.best()
    assert winner is not None  # noqa: S101 - trial 0 at least runs in full, or the best of the first rung does
    cost, incumbent = _incumbents(executor.spent, quality)
    return Replay(
        cost,
        incumbent,
        quality(winner.params, winner.epochs - 1),
        tuple(trial.freeze_depth for trial in found),
        tuple((t.freeze_depth, t.value, quality(t.params, t.epochs - 1)) for t in found if t.outcome == "complete"),
        winner.slot,
    )


def _run(
    table: DepthTable,
    strategy: Strategy,
    hint: Hint,
    settings: Settings,
    executor: TableExecutor,
    listener: StudyListener | None,
) -> StudyRecord:
    """The one place that knows how a search is put together."""
    study = optuna.create_study(direction="maximize")
    if strategy.hint is not None:
        StudyRecord(study).evidence = _evidence(table, hint)
    deepest = table.depths - 1
    net = SimpleNamespace(
        num_blocks=deepest, deepest=deepest, attention_block=None, pretrained=True, architecture=table.name
    )
    space = build_space(settings.space, cast(BlockNet, net))
    rule = strategy.rule(table) if strategy.rule else None
    with ExitStack() as patched:
        if rule:
            patched.enter_context(patch("search.study.driver.build_promotion", lambda *_, **__: rule))
        if own := strategy.sampler:
            patched.enter_context(
                patch("search.study.driver.build_sampler", lambda _, seed, slot, *__: own(1000 * seed + slot))
            )
        driver = SearchStudy(
            settings, space, study, SilentTracker(), "study", listener or SilentListener(),
            batches=strategy.batches or table.batches,
            epoch_cost=lambda params: float(table.epoch_cost[params.freeze_depth]),
        )  # fmt: skip
        if strategy.pruner:
            study.pruner = strategy.pruner()
        driver.run(executor)
    return StudyRecord(study)


def _settings(table: DepthTable, strategy: Strategy, seed: int, trials: int) -> Settings:
    settings = Settings()
    return replace(
        settings,
        seed=seed,
        search=replace(settings.search, trials=trials, **strategy.search),
        space=replace(
            settings.space,
            optimizers=table.optimizers,
            freeze_depth=strategy.freeze_depth,
            # Trial 0 when the committed results were made, at a constant rate.
            **{"default_depths": 1, "default_optimizer": "momentum", **strategy.space},
        ),
        trainer=replace(settings.trainer, epochs=table.val.shape[-1]),
    )


def _evidence(table: DepthTable, hint: Hint) -> Evidence:
    depths, none = table.depths, np.zeros(0, dtype=np.int64)
    prior = np.full(depths, 1 / depths) if hint.probabilities is None else hint.probabilities
    return Evidence(
        blocks=tuple(f"block {b + 1}" for b in range(depths - 1)),
        scorers=hint.scorers,
        depths=(0, depths - 1),
        prior="uniform" if hint.probabilities is None else "evidence",
        probabilities=prior,
        preferred=prior_mode(prior, 0, depths - 1),
        cost=_FREE,
        training_rows=none,
        validation_rows=none,
    )


def _place(table: DepthTable, params: TrialParams) -> tuple[int, int, int]:
    """Depth, optimizer and factor in the table."""
    away = np.abs(np.log(np.array(table.factors)) - np.log(params.lr_factor))
    return params.freeze_depth, table.optimizers.index(params.optimizer), int(away.argmin())


def _incumbents(spent: list[Spent], quality: Callable[[TrialParams, int], float]) -> tuple[Floats, Floats]:
    """Bill and quality of the incumbent at the end of each piece of training."""
    best, incumbent = -1.0, 0.0
    costs, qualities = [], []
    for one in spent:
        if one.last and one.value > best:
            best, incumbent = one.value, quality(one.params, one.epoch)
        if one.last:
            costs.append(one.bill)
            qualities.append(incumbent)
    return np.array(costs), np.array(qualities)
