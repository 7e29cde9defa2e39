"""How many trials a search needs, and which sampler: `python -m benchmarks.few_trials [draws=N]`, on the depth tables.

The driver of `python -m search` with today's defaults: trial 0 is Adam at its reference rate with half of the blocks
frozen, the same at `space.default_depths` freeze depths runs in full, the others are halved. The tables have a constant
rate and three factors of the learning rate. What counts is the mean test macro F1 of the winning trial over the splits
that the search does not see (`table_search`), in points, and its cost without the refit, in epochs of training
everything. The default of the other tasks is the configuration whose mean test score is best on all other tables.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import optuna
from optuna.samplers import GPSampler
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from benchmarks.finished_tables import DepthTable, Floats, is_complete, read_table
from benchmarks.table_search import Strategy, replay

TASKS = ("neu_10", "neu_40", "simulated", "magnetic_tile", "planted_0", "planted_middle", "planted_L")
SPLITS = 5


def _gaussian_process(seed: int) -> GPSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed, n_startup_trials=4, deterministic_objective=False)


def strategies() -> list[tuple[Strategy, int]]:
    """What is compared, and its number of trials."""
    first = {"default_optimizer": None, "default_depths": 3}
    few, late = {"startup_trials": 4}, {"startup_trials": 8}
    return [
        (Strategy("trial 0 alone", space={**first, "default_depths": 1}), 1),
        (Strategy("trial 0 at three depths", space=first), 3),
        (Strategy("8 trials, random", {"sampler": "random"}, space=first), 8),
        (Strategy("8 trials, TPE after 4", few, space=first), 8),
        (Strategy("8 trials, TPE after 8", late, space=first), 8),
        (Strategy("8 trials, GP after 4", space=first, sampler=_gaussian_process), 8),
        (Strategy("12 trials, random", {"sampler": "random"}, space=first), 12),
        (Strategy("12 trials, TPE after 4", few, space=first), 12),
        (Strategy("12 trials, GP after 4", space=first, sampler=_gaussian_process), 12),
        (Strategy("30 trials, random", {"sampler": "random"}, space=first), 30),
        (Strategy("30 trials, TPE after 8", late, space=first), 30),
        (Strategy("8 trials, trial 0 at one depth", few, space={**first, "default_depths": 1}), 8),
        (Strategy("8 trials, trial 0 at five depths", few, space={**first, "default_depths": 5}), 8),
        (Strategy("8 trials, not halved", {**few, "pruner": "none"}, space=first), 8),
    ]


def others_default(table: DepthTable) -> tuple[float, ...]:
    """On each split, the test score of the configuration that is best on the other tasks; its depth is a share of L."""
    scores: dict[tuple[float, str, float], list[float]] = {}
    for other in map(read_table, (name for name in TASKS if name != table.name)):
        last = other.test[..., -1].mean(0)
        for (k, o, f), value in np.ndenumerate(last):
            key = round(8 * k / (other.depths - 1)) / 8, other.optimizers[o], other.factors[f]
            scores.setdefault(key, []).append(float(value))
    tried = {key: np.mean(v) for key, v in scores.items() if key[1] in table.optimizers and key[2] in table.factors}
    most = max(len(scores[key]) for key in tried)
    share, optimizer, factor = max((k for k in tried if len(scores[k]) == most), key=lambda k: tried[k])
    place = round(share * (table.depths - 1)), table.optimizers.index(optimizer), table.factors.index(factor)
    last = table.test[(slice(None), *place, -1)]
    return tuple(float(last[table.without(s)].mean()) for s in range(min(SPLITS, len(table.val))))


def main(draws: int) -> None:
    """Print a row a strategy."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = [read_table(name) for name in TASKS if is_complete(name)]
    found: dict[str, list[Floats]] = {"the others' default": [100 * np.array(others_default(t)) for t in tables]}
    costs: dict[str, list[float]] = {"the others' default": []}
    for strategy, trials in strategies():
        for table in tables:
            runs = [
                [replay(table, strategy, split, seed, trials) for seed in range(draws if trials > 3 else 1)]
                for split in range(min(SPLITS, len(table.val)))
            ]
            found.setdefault(strategy.name, []).append(100 * np.array([np.mean([r.winner for r in of]) for of in runs]))
            costs.setdefault(strategy.name, []).append(float(np.mean([r.cost[-1] for of in runs for r in of])))
    compared = ("minus trial 0 (95 %, splits)", "minus the others' default", "cost")
    shown = Table("search", *(t.name for t in tables), "mean", *compared)
    for name, values in found.items():
        gains = [_interval(values, found[other]) for other in ("trial 0 alone", "the others' default")]
        cost = f"{np.mean(costs[name]):.0f}" if costs[name] else ""
        shown.add_row(
            name, *(f"{v.mean():.1f}" for v in values), f"{np.mean([v.mean() for v in values]):.2f}", *gains, cost
        )
    Console(width=190).print(shown)


def _interval(values: list[Floats], other: list[Floats]) -> str:
    gains = np.concatenate([a - b for a, b in zip(values, other, strict=True)])
    half = student.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
    return f"{gains.mean():+.2f} ({gains.mean() - half:+.2f} to {gains.mean() + half:+.2f})"


if __name__ == "__main__":
    main(next((int(a.removeprefix("draws=")) for a in sys.argv[1:] if a.startswith("draws=")), 10))
