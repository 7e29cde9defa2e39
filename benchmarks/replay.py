"""Strategies of a search, replayed on the depth tables in milliseconds: `python -m benchmarks.replay [TASK ...]`.

A replay asks for configurations one after the other, pays for the epochs it takes (in epochs of training everything,
with the frozen prefix paid once a depth), may stop each by a rule, and keeps as incumbent the trial with the best
validation score so far. What counts is the *quality* of the incumbent: its mean test score over the splits that the
replay does not see, since one split's test images cannot tell two good configurations apart. The best quality of the
whole grid is found on the same splits. Rows go to benchmarks/results/replay.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from benchmarks.finished_tables import TABLES, DepthTable, Floats, read_table
from benchmarks.results_file import write_rows
from search.pruner import HalvingRule, rungs

TRIALS, REPEATS, WITHIN = 30, 10, 0.01


Prior = Callable[[DepthTable, int], Floats]  # (table, split) -> (depths,) probabilities


@dataclass(frozen=True)
class Strategy:
    """One way to search.

    Attributes:
        name: for tables.
        sampler: `tpe` or `random`.
        pruner: builds the rule for a number of epochs.
        prior: of the freeze depth, or None for the uniform one.
        prior_trials: trials that are drawn from it.
        allowed: freeze depths that are tried at all, None for every one.
        first: freeze depth of trial 0, None for half of them.
    """

    name: str
    sampler: str = "tpe"
    pruner: Callable[[int], optuna.pruners.BasePruner] = lambda epochs: HalvingRule(rungs(epochs), 3)
    prior: Prior | None = None
    prior_trials: int = 10
    allowed: tuple[int, ...] | None = None
    first: int | None = None


@dataclass(frozen=True, eq=False)
class Replay:
    """What one replay did.

    Attributes:
        cost: (trials,) paid until the end of each trial.
        quality: (trials,) of the incumbent after each trial.
    """

    cost: Floats
    quality: Floats


def replay(table: DepthTable, strategy: Strategy, split: int, seed: int, trials: int = TRIALS) -> Replay:
    """Run a strategy on one split."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng([split, seed])
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed=int(rng.integers(2**31)))
        if strategy.sampler == "random"
        else optuna.samplers.TPESampler(
            n_startup_trials=8, multivariate=True, n_ei_candidates=24, seed=int(rng.integers(2**31))
        )
    )
    epochs = table.val.shape[-1]
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=strategy.pruner(epochs))
    allowed = strategy.allowed or tuple(range(table.depths))
    prior = strategy.prior(table, split) if strategy.prior else None
    first = strategy.first if strategy.first is not None else allowed[len(allowed) // 2]
    quality = table.test[table.without(split)].mean(0)
    cost, costs, qualities = 0.0, [], []
    best, incumbent_quality = -1.0, 0.0
    seen: set[int] = set()
    for number in range(trials):
        fixed: dict[str, Any] = {}
        if number == 0:
            fixed = {"freeze_depth": allowed.index(first), "optimizer": 0, "factor": table.factors.index(1.0)}
        elif prior is not None and number < strategy.prior_trials:
            fixed = {"freeze_depth": int(rng.choice(table.depths, p=prior))}
        trial = study.ask(_space(table, len(allowed))) if not fixed else _ask_fixed(study, table, len(allowed), fixed)
        k, o, f = allowed[trial.params["freeze_depth"]], trial.params["optimizer"], trial.params["factor"]
        if k not in seen:
            cost += table.prefix_cost[k]
            seen.add(k)
        curve, end = table.val[split, k, o, f], epochs
        for step in range(1, epochs + 1):
            trial.report(float(curve[step - 1]), step)
            if step < epochs and trial.should_prune():
                end = step
                break
        cost += table.epoch_cost[k] * end
        at = int(curve[:end].argmax())
        if curve[at] > best:
            best, incumbent_quality = float(curve[at]), float(quality[k, o, f, at])
        if end < epochs:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, float(curve.max()))
        costs.append(cost)
        qualities.append(incumbent_quality)
    return Replay(np.array(costs), np.array(qualities))


def _space(table: DepthTable, depths: int) -> dict[str, optuna.distributions.BaseDistribution]:
    return {
        "freeze_depth": optuna.distributions.IntDistribution(0, depths - 1),
        "optimizer": optuna.distributions.CategoricalDistribution(list(range(len(table.optimizers)))),
        "factor": optuna.distributions.IntDistribution(0, len(table.factors) - 1),
    }


def _ask_fixed(study: optuna.Study, table: DepthTable, depths: int, fixed: dict[str, Any]) -> optuna.Trial:
    study.enqueue_trial(fixed)
    return study.ask(_space(table, depths))


def best_quality(table: DepthTable, split: int) -> float:
    """Quality of the configuration that is best on half of the other splits, scored on the other half."""
    others = table.without(split)
    final = table.test.max(-1) if len(others) < 2 else None
    if final is not None:
        return float(table.test[others].mean(0).max())
    found = []
    for part in (others[::2], others[1::2]):
        rest = np.setdiff1d(others, part)
        mean = table.test[part].mean(0)
        place = np.unravel_index(mean.argmax(), mean.shape)
        found.append(table.test[rest].mean(0)[place])
    return float(np.mean(found))


def cost_to_reach(run: Replay, goal: float) -> float:
    """Cost until the incumbent's quality is at least `goal`; that of the whole replay where it never is."""
    reached = np.flatnonzero(run.quality >= goal)
    return float(run.cost[reached[0]] if len(reached) else run.cost[-1])


def _median(epochs: int) -> optuna.pruners.BasePruner:  # noqa: ARG001 - the signature of a strategy's rule
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)


def _none(epochs: int) -> optuna.pruners.BasePruner:  # noqa: ARG001
    return optuna.pruners.NopPruner()


def _halving(at: tuple[int, ...], factor: float, early: int, epochs: int) -> optuna.pruners.BasePruner:
    return HalvingRule([rung for rung in at if rung < epochs], factor, early=early)


def strategies(depths: int) -> list[Strategy]:
    """Everything that is compared."""
    middle = depths // 2
    return [
        Strategy("TPE + median", pruner=_median),
        Strategy("TPE + halving"),
        Strategy("TPE, no pruning", pruner=_none),
        Strategy("random + halving", sampler="random"),
        *(Strategy(f"freeze depth {k} fixed", allowed=(k,)) for k in sorted({0, middle // 2, middle, depths - 1})),
        *(
            Strategy(
                f"TPE + halving 1/{factor:g} at {at}" + (f", like with like to {early}" if early else ""),
                pruner=partial(_halving, at, factor, early),
            )
            for factor in (2, 3)
            for at in ((1, 3), (1, 2, 4, 8), (2, 4, 8))
            for early in (0, 2, 4)
        ),
    ]


def interval(values: Sequence[Sequence[float]], draws: int = 2000) -> tuple[float, float, float]:
    """Mean and 95 % interval by a bootstrap over splits, then over the replays of a split."""
    rng = np.random.default_rng(0)
    rows = [np.asarray(v, float) for v in values]
    mean = float(np.mean([r.mean() for r in rows]))
    means = []
    for _ in range(draws):
        chosen = rng.integers(len(rows), size=len(rows))
        means.append(np.mean([rng.choice(rows[i], len(rows[i])).mean() for i in chosen]))
    low, high = np.quantile(means, (0.025, 0.975))
    return mean, float(low), float(high)


def main(names: list[str]) -> int:
    """Replay on the tasks named, or on all that have a complete table."""
    found = sorted(folder.name for folder in TABLES.iterdir() if folder.is_dir()) if TABLES.is_dir() else []
    if unknown := [name for name in names if name not in found]:
        print(f"replay: no table of {unknown[0]!r}; there are {', '.join(found) or 'none'}", file=sys.stderr)
        return 2
    rows = []
    for name in names or found:
        table = read_table(name)
        shown = Table(
            "strategy", "cost to within 1 point / grid", "cost of 30 trials", "regret after 30 trials, points"
        )
        goals = [best_quality(table, split) - WITHIN for split in range(len(table.val))]
        for strategy in strategies(table.depths):
            runs = [
                [replay(table, strategy, split, seed) for seed in range(REPEATS)] for split in range(len(table.val))
            ]
            reach = [[cost_to_reach(r, g) / table.grid_cost for r in of] for of, g in zip(runs, goals, strict=True)]
            total = [[float(r.cost[-1]) for r in of] for of in runs]
            regret = [[100 * (g + WITHIN - r.quality[-1]) for r in of] for of, g in zip(runs, goals, strict=True)]
            cells = [interval(values) for values in (reach, total, regret)]
            shown.add_row(
                strategy.name,
                *(f"{mean:{form}} ({low:{form}} to {high:{form}})"
                  for (mean, low, high), form in zip(cells, (".3f", ".1f", ".2f"), strict=True)),
            )  # fmt: skip
            rows.append(
                {
                    "task": name,
                    "strategy": strategy.name,
                    "splits": len(table.val),
                    "reach": [round(v, 4) for v in cells[0]],
                    "cost": [round(v, 2) for v in cells[1]],
                    "regret_points": [round(v, 3) for v in cells[2]],
                }
            )
        title = f"{name}: {len(table.val)} splits x {REPEATS} replays; the grid costs {table.grid_cost:.0f} epochs"
        Console().print(title, shown, sep="\n")
    write_rows("replay", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
