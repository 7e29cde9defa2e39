"""One strategy of a search, replayed on a depth table.

A replay asks for configurations one after the other, pays for the epochs it takes (in epochs of training everything,
with the frozen prefix paid once a depth and the evidence once a study), and keeps as incumbent the trial with the best
validation score so far. What counts is the *quality* of the incumbent: its mean test score over the splits that the
replay does not see, since one split's test images cannot tell two good configurations apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from benchmarks.finished_tables import DepthTable, Floats
from search.evidence.record import prior_mode
from search.study.promotion import DEFAULT_SLOTS, PromotionRule, Standing, rungs
from search.study.sampler import PriorSampler

__all__ = ["Hint", "Replay", "Strategy", "replay"]

TRIALS = 30


@dataclass(frozen=True, eq=False)
class Hint:
    """What a strategy knows of freeze depths before it begins.

    Attributes:
        probabilities: of the depths, (depths,), together 1.
        cost: of finding them, in epochs of training everything.
    """

    probabilities: Floats
    cost: float = 0.0


@dataclass(frozen=True)
class Strategy:
    """One way to search.

    Attributes:
        name: for tables.
        sampler: `tpe` or `random`.
        rule: for a table, Optuna's pruner, or the rule by which trials wait for each other.
        hint: of the freeze depth for (table, split), or None.
        hint_trials: finished trials from which on the hint has no weight.
        allowed: freeze depths that are tried at all, None for every one.
        first: freeze depth of trial 0, None for half of them.
    """

    name: str
    sampler: str = "tpe"
    rule: Callable[[DepthTable], optuna.pruners.BasePruner | PromotionRule] = lambda table: PromotionRule(
        rungs(table.val.shape[-1], table.batches), 3, in_full=DEFAULT_SLOTS
    )
    hint: Callable[[DepthTable, int], Hint] | None = None
    hint_trials: int = 10
    allowed: tuple[int, ...] | None = None
    first: int | None = None


@dataclass(frozen=True, eq=False)
class Replay:
    """What one replay did.

    Attributes:
        cost: paid until the end of each piece of training, ascending.
        quality: of the incumbent after each.
        winner: quality of the trial with the best validation score among those that ran their full length.
        depths: freeze depth of each trial, in order.
        whole: (freeze depth, best validation score, quality) of each trial that ran its full length.
    """

    cost: Floats
    quality: Floats
    winner: float
    depths: tuple[int, ...]
    whole: tuple[tuple[int, float, float], ...] = ()


@dataclass
class _Trial:
    config: tuple[int, int, int]
    scores: dict[int, float] = field(default_factory=dict)
    waiting: bool = False


class _Study:
    """Trials, bills and incumbent of one replay."""

    def __init__(self, table: DepthTable, strategy: Strategy, split: int, seed: int) -> None:
        self.table, self.strategy, self.split = table, strategy, split
        self.epochs = table.val.shape[-1]
        self.rng = np.random.default_rng([split, seed])
        self.hint = strategy.hint(table, split) if strategy.hint else None
        self.allowed = strategy.allowed or tuple(range(table.depths))
        self.truth = table.test[table.without(split)].mean(0)
        self.trials: list[_Trial] = []
        self.bill = self.hint.cost if self.hint else 0.0
        self.best, self.incumbent = -1.0, 0.0
        self.costs: list[float] = []
        self.qualities: list[float] = []

    def add(self) -> _Trial:
        """Ask for one more trial; its prefix is paid if it is the first at its depth."""
        trial = _Trial(self._config())
        if all(t.config[0] != trial.config[0] for t in self.trials):
            self.bill += self.table.prefix_cost[trial.config[0]]
        self.trials.append(trial)
        return trial

    def train(self, trial: _Trial, goes_on: Callable[[_Trial], bool]) -> None:
        """Train until `goes_on` says no or the end."""
        while True:
            epoch = len(trial.scores) + 1
            self.bill += self.table.epoch_cost[trial.config[0]]
            value = float(self.table.val[(self.split, *trial.config, epoch - 1)])
            trial.scores[epoch] = value
            if value > self.best:
                self.best, self.incumbent = value, float(self.truth[(*trial.config, epoch - 1)])
            if epoch == self.epochs or not goes_on(trial):
                break
        self.costs.append(self.bill)
        self.qualities.append(self.incumbent)

    def result(self) -> Replay:
        """Costs and qualities."""
        whole = []
        for trial in self.trials:
            if len(trial.scores) == self.epochs:
                at = max(trial.scores, key=lambda epoch, scores=trial.scores: (scores[epoch], -epoch)) - 1
                whole.append((trial.config[0], max(trial.scores.values()), float(self.truth[(*trial.config, at)])))
        return Replay(
            np.array(self.costs),
            np.array(self.qualities),
            max(whole, key=lambda one: (one[1], one[0]))[2],
            tuple(t.config[0] for t in self.trials),
            tuple(whole),
        )

    def shown(self, sampler: BaseSampler | None = None) -> optuna.Study:
        """The study as Optuna sees it: what waits or was stopped is pruned."""
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(
            [
                create_trial(
                    state=TrialState.COMPLETE if len(t.scores) == self.epochs else TrialState.PRUNED,
                    value=max(t.scores.values()),
                    params=self.params(t.config),
                    distributions=self.space,
                    intermediate_values=t.scores,
                )
                for t in self.trials
            ]
        )
        return study

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """What Optuna is asked for."""
        return {
            "freeze_depth": IntDistribution(0, len(self.allowed) - 1),
            "optimizer": CategoricalDistribution(list(range(len(self.table.optimizers)))),
            "factor": IntDistribution(0, len(self.table.factors) - 1),
        }

    def params(self, config: tuple[int, int, int]) -> dict[str, Any]:
        """A configuration in those terms."""
        return {"freeze_depth": self.allowed.index(config[0]), "optimizer": config[1], "factor": config[2]}

    def _config(self) -> tuple[int, int, int]:
        """As `search.study` draws: the default, the same at the depth the hint prefers, then the sampler."""
        number = len(self.trials)
        first = self.strategy.first if self.strategy.first is not None else self.allowed[len(self.allowed) // 2]
        middle = self.table.factors.index(1.0)
        if number == 0:
            return first, 0, middle
        if self.hint is not None and number == 1:
            preferred = prior_mode(self.hint.probabilities, 0, self.table.depths - 1)
            if preferred != first:
                return preferred, 0, middle
        seed = int(self.rng.integers(2**31))
        sampler: BaseSampler = (
            RandomSampler(seed=seed)
            if self.strategy.sampler == "random"
            else TPESampler(n_startup_trials=8, multivariate=True, n_ei_candidates=24, seed=seed)
        )
        if self.hint is not None:
            sampler = PriorSampler(sampler, self.hint.probabilities, trials=self.strategy.hint_trials, seed=seed)
        trial = self.shown(sampler).ask(self.space)
        return self.allowed[trial.params["freeze_depth"]], trial.params["optimizer"], trial.params["factor"]


def replay(table: DepthTable, strategy: Strategy, split: int, seed: int, trials: int = TRIALS) -> Replay:
    """Run a strategy on one split."""
    study = _Study(table, strategy, split, seed)
    rule = strategy.rule(table)
    if isinstance(rule, PromotionRule):
        _with_promotion(study, rule, trials)
    else:
        _with_pruner(study, rule, trials)
    return study.result()


def _with_promotion(study: _Study, rule: PromotionRule, trials: int) -> None:
    while True:
        standings = [Standing(i, t.config[0], t.scores, t.waiting) for i, t in enumerate(study.trials)]
        slot = rule.next(standings, closing=len(study.trials) >= trials)
        if slot is None and len(study.trials) >= trials:
            return
        trial = study.add() if slot is None else study.trials[slot]
        study.train(trial, lambda t: len(t.scores) not in rule.at)
        trial.waiting = len(trial.scores) < study.epochs


def _with_pruner(study: _Study, pruner: optuna.pruners.BasePruner, trials: int) -> None:
    live = optuna.create_study(direction="maximize", pruner=pruner, sampler=RandomSampler(0))
    for _ in range(trials):
        trial = study.add()
        live.enqueue_trial(study.params(trial.config))
        asked = live.ask(study.space)

        def goes_on(trial: _Trial, asked: optuna.Trial = asked) -> bool:
            asked.report(trial.scores[len(trial.scores)], len(trial.scores))
            return not asked.should_prune()

        study.train(trial, goes_on)
        whole = len(trial.scores) == study.epochs
        state = None if whole else TrialState.PRUNED
        live.tell(asked, max(trial.scores.values()) if whole else None, state=state)
