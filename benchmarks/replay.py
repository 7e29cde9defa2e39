"""Strategies of a search, replayed on the depth tables: `python -m benchmarks.replay [TASK ...]`.

See `benchmarks.table_search` for how a search is replayed, what it pays and what counts. Here are the strategies that
are compared, and the table of what they cost. Rows go to benchmarks/results/replay.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from rich.console import Console
from rich.table import Table

from benchmarks.finished_tables import DepthTable, Floats, is_complete, read_table, tabled
from benchmarks.replay_priors import prior_strategies
from benchmarks.results_file import read_rows, write_rows
from benchmarks.table_search import Replay, Strategy, replay
from search.settings.schema import SearchSettings
from search.study.promotion import PromotionRule
from search.trial.rungs import ENOUGH_STEPS, rungs

REPEATS, WITHIN = 10, 0.01
Spent = list[tuple[float, bool]]


def best_quality(table: DepthTable, split: int) -> float:
    """Quality of the configuration that is best on half of the other splits, scored on the other half.

    With fewer than two others, of the one with the best validation score of the whole grid: the best of all test scores
    would be the luckiest, which no search that does not look at them can reach.
    """
    others = table.without(split)
    if len(others) < 2:
        place = np.unravel_index(table.val[split].argmax(), table.val[split].shape)
        return float(table.test[others].mean(0)[place])
    found = []
    for part in (others[::2], others[1::2]):
        rest = np.setdiff1d(others, part)
        mean = table.test[part].mean(0)
        place = np.unravel_index(mean.argmax(), mean.shape)
        found.append(table.test[rest].mean(0)[place])
    return float(np.mean(found))


def cost_to_reach(runs: Sequence[Sequence[Replay]], goals: Sequence[float], grid: float) -> tuple[list[Spent], float]:
    """What was spent until the incumbent's quality was within reach, and how often it got there.

    Replays that never get there count with all they cost: divided by the number of those that do (`expected_cost`),
    this is the expected cost of starting again until one does. Else a strategy that gives up early would look cheap.

    Args:
        runs: replays by split.
        goals: quality to reach, by split.
        grid: unit of the cost.

    Returns:
        By split, for each replay (cost / grid, whether it got there); and the share of those that did.
    """
    spent: list[Spent] = []
    for of, goal in zip(runs, goals, strict=True):
        reached = [np.flatnonzero(r.quality >= goal) for r in of]
        spent.append(
            [(float(r.cost[at[0] if len(at) else -1]) / grid, bool(len(at))) for r, at in zip(of, reached, strict=True)]
        )
    return spent, float(np.mean([there for of in spent for _, there in of]))


def expected_cost(spent: Sequence[Spent], draws: int = 2000) -> tuple[float, float, float]:
    """Cost of all replays / number that got there, with a 95 % interval by a bootstrap over splits, then replays."""
    rows = [np.array(of, float) for of in spent]

    def ratio(parts: Sequence[Floats]) -> float:
        total = np.concatenate(parts).sum(0)
        return float(total[0] / total[1]) if total[1] else float("inf")

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        chosen = rng.integers(len(rows), size=len(rows))
        drawn.append(ratio([rows[i][rng.integers(len(rows[i]), size=len(rows[i]))] for i in chosen]))
    low, high = np.quantile(drawn, (0.025, 0.975), method="inverted_cdf")
    return ratio(rows), float(low), float(high)


MEDIAN = {"pruner": "median"}
NO_PRUNING = {"pruner": "none"}


def _optuna_halving() -> BasePruner:
    """Optuna's successive halving, from the first epoch on."""
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def _changed_rule(table: DepthTable, *, early: int = 2, in_full: Sequence[int] = (0,)) -> PromotionRule:
    """The rule of a search with one thing changed that is no setting."""
    at = rungs(table.val.shape[-1], table.batches)
    return PromotionRule(at, SearchSettings().halving_factor, early=early, in_full=in_full)


def strategies(depths: int) -> list[Strategy]:
    """Everything that is compared without any hint."""
    middle = depths // 2
    return [
        Strategy("TPE + median", MEDIAN),
        Strategy("TPE + Optuna's halving", NO_PRUNING, pruner=_optuna_halving),
        Strategy("TPE, no pruning", NO_PRUNING),
        Strategy("TPE + promotion (ours)"),
        Strategy("random + promotion", {"sampler": "random"}),
        *(
            Strategy(f"depth {k} fixed, promotion", freeze_depth=(k, k))
            for k in sorted({0, middle // 2, middle, depths - 1})
        ),
        Strategy("one in two goes on", {"halving_factor": 2}),
        Strategy("one in four goes on", {"halving_factor": 4}),
        Strategy("first rung at epoch 1", batches=ENOUGH_STEPS),
        Strategy("all compared with all", rule=partial(_changed_rule, early=0)),
        Strategy("trial 0 waits too", rule=partial(_changed_rule, in_full=())),
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
    try:
        names = tabled(names)
    except ValueError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in names:
        if not is_complete(name):
            print(f"replay: no complete split of {name} yet", file=sys.stderr)
            continue
        table, rows = read_table(name), []
        priors, fitted_on = prior_strategies(table)
        shown = Table("strategy", "cost to within 1 point / grid", "got there", "cost of 30 trials", "regret, points")
        for row in _judge(table, [*strategies(table.depths), *priors]):
            rows.append(row | {"fitted_on": fitted_on})
            cells = [
                "{:{f}} ({:{f}} to {:{f}})".format(*row[key], f=form)
                for key, form in (("reach", ".3f"), ("cost", ".0f"), ("regret_points", ".2f"))
            ]
            shown.add_row(row["strategy"], cells[0], f"{row['reached']:.0%}", *cells[1:])
        Console().print(
            f"{name}: {len(table.val)} splits x {REPEATS} replays; the grid costs {table.grid_cost:.0f} epochs; "
            f"priors {'fitted on ' + ', '.join(fitted_on) if fitted_on else 'uncalibrated'}",
            shown,
            sep="\n",
        )
        write_rows("replay", [*(row for row in read_rows("replay") if row["task"] != name), *rows])
    return 0


def _judge(table: DepthTable, compared: Sequence[Strategy]) -> Iterator[dict[str, Any]]:
    places = range(len(table.val))
    best = [best_quality(table, place) for place in places]
    for strategy in compared:
        runs = [[replay(table, strategy, place, seed) for seed in range(REPEATS)] for place in places]
        spent, reached = cost_to_reach(runs, [b - WITHIN for b in best], table.grid_cost)
        regret = [[100 * (b - r.winner) for r in of] for of, b in zip(runs, best, strict=True)]
        yield {
            "task": table.name,
            "strategy": strategy.name,
            "splits": len(table.val),
            "reach": [round(v, 4) for v in expected_cost(spent)],
            "reached": round(reached, 3),
            "cost": [round(v, 2) for v in interval([[float(r.cost[-1]) for r in of] for of in runs])],
            "regret_points": [round(v, 3) for v in interval(regret)],
            "regrets": [[round(v, 2) for v in of] for of in regret],
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
