"""Strategies of a search, replayed on the depth tables in milliseconds: `python -m benchmarks.replay [TASK ...]`.

See `benchmarks.replay_engine` for what a replay pays and what counts. Here are the strategies that are compared, and
the table of what they cost. Rows go to benchmarks/results/replay.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from rich.console import Console
from rich.table import Table

from benchmarks.finished_tables import TABLES, DepthTable, read_table
from benchmarks.replay_engine import Replay, Strategy, replay
from benchmarks.results_file import write_rows
from search.promotion import PromotionRule

REPEATS, WITHIN = 10, 0.01


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


def median(epochs: int) -> BasePruner:  # noqa: ARG001 - the signature of a strategy's rule
    """Optuna's median pruner, with room to warm up."""
    return MedianPruner(n_startup_trials=4, n_warmup_steps=2)


def optuna_halving(epochs: int) -> BasePruner:  # noqa: ARG001
    """Optuna's successive halving, from the first epoch on."""
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def whole(epochs: int) -> BasePruner:  # noqa: ARG001
    """Every trial runs its full length."""
    return NopPruner()


def _promotion(at: tuple[int, ...], factor: float, early: int, epochs: int) -> PromotionRule:
    return PromotionRule([rung for rung in at if rung < epochs], factor, early=early)


def strategies(depths: int) -> list[Strategy]:
    """Everything that is compared without any hint."""
    middle = depths // 2
    return [
        Strategy("TPE + median", rule=median),
        Strategy("TPE + Optuna's halving", rule=optuna_halving),
        Strategy("TPE, no pruning", rule=whole),
        Strategy("TPE + promotion (ours)"),
        Strategy("random + promotion", sampler="random"),
        *(Strategy(f"depth {k} fixed, promotion", allowed=(k,)) for k in sorted({0, middle // 2, middle, depths - 1})),
        *(
            Strategy(
                f"promotion 1/{factor:g} at {at}, like with like to {early}",
                rule=partial(_promotion, at, factor, early),
            )
            for factor in (2, 3, 4)
            for at in ((1, 2, 4, 8), (1, 3), (2, 4, 8))
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
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for name in names or found:
        table = read_table(name)
        shown = Table("strategy", "cost to within 1 point / grid", "cost of 30 trials", "regret of the winner, points")
        goals = [best_quality(table, split) - WITHIN for split in range(len(table.val))]
        for strategy in strategies(table.depths):
            runs = [
                [replay(table, strategy, split, seed) for seed in range(REPEATS)] for split in range(len(table.val))
            ]
            reach = [[cost_to_reach(r, g) / table.grid_cost for r in of] for of, g in zip(runs, goals, strict=True)]
            total = [[float(r.cost[-1]) for r in of] for of in runs]
            regret = [[100 * (g + WITHIN - r.winner) for r in of] for of, g in zip(runs, goals, strict=True)]
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
