"""How many trials a search needs, and which sampler: `python -m benchmarks.few_trials [draws=N]`, on the depth tables.

The driver of `python -m search` with today's defaults: trial 0 is Adam at its reference rate with half of the blocks
frozen, the same at `space.default_depths` freeze depths runs in full, the others are halved. The tables have a constant
rate and three factors of the learning rate. What counts is the mean test macro F1 of the winning trial over the splits
that the search does not see (`table_search`), in points, and its cost without the refit, in epochs of training
everything. The default of the other tasks is the configuration whose mean test score is best on all other tables.

`portfolios` compares the first trials of today's search with portfolios that are learnt, greedily, on the other tables;
`twins` stops those first trials where a deeper, cheaper one has as low a validation loss after four epochs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.samplers import GPSampler
from rich.console import Console
from rich.table import Table

from benchmarks.finished_tables import DepthTable, Floats, is_complete, read_table
from benchmarks.student_interval import interval
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
        *((Strategy(f"{n} trials, TPE after 4", few, space=first), n) for n in (5, 6, 7)),
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


Configuration = tuple[float, str, float]
"""Freeze depth in eighths of L, optimizer, factor."""


@dataclass(frozen=True)
class LastEpoch:
    """Validation F1, validation log loss and quality of a configuration on each split, (splits,), and its cost."""

    score: Floats
    loss: Floats
    quality: Floats
    cost: float


def last_epochs(table: DepthTable) -> dict[Configuration, LastEpoch]:
    """Every configuration of a table."""
    found = {}
    assert table.loss is not None  # noqa: S101
    for k, o, f in np.ndindex(table.val.shape[1:4]):
        quality = np.array([table.test[table.without(s), k, o, f, -1].mean() for s in range(len(table.val))])
        found[round(8 * k / (table.depths - 1)), table.optimizers[o], table.factors[f]] = LastEpoch(
            table.val[:, k, o, f, -1], np.minimum(table.loss[:, k, o, f, -1], 9), quality,
            float(table.epoch_cost[k]) * table.val.shape[-1],
        )  # fmt: skip
    return found


def chosen(rows: Mapping[Configuration, LastEpoch], portfolio: Sequence[Configuration]) -> float:
    """Mean quality over the splits of what the judge takes of a portfolio."""
    of = [rows[c] for c in portfolio if c in rows]
    best = [np.lexsort(([r.loss[s] for r in of], [-r.score[s] for r in of]))[0] for s in range(len(of[0].score))]
    return float(np.mean([of[place].quality[s] for s, place in enumerate(best)]))


def learnt(others: Sequence[Mapping[Configuration, LastEpoch]], size: int) -> list[Configuration]:
    """The portfolio that is best on these tables, one configuration after another."""
    known = [c for c in others[0] if sum(c in rows for rows in others) >= len(others) - 1]
    found: list[Configuration] = []
    for _ in range(size):
        means = {c: [chosen(rows, [*found, c]) for rows in others if {*found, c} & set(rows)] for c in known}
        found.append(max(known, key=lambda c: np.mean(means[c])))
    return found


def portfolios() -> None:
    """Print what each portfolio reaches on the table that it was not learnt on."""
    rows = {name: last_epochs(read_table(name)) for name in TASKS}
    shown = Table("portfolio", *TASKS, "mean", "cost")
    ours: list[Configuration] = [(4, "adam", 1.0), (8, "adam", 1.0), (2, "adam", 1.0)]
    wanted: dict[str, Callable[[str], list[Configuration]]] = {"trial 0 at three depths": lambda _: ours}
    for size in (1, 3, 5):
        wanted[f"{size} learnt on the others"] = lambda name, size=size: learnt(  # type: ignore[misc]
            [rows[other] for other in TASKS if other != name], size
        )
    for label, portfolio in wanted.items():
        taken = {name: portfolio(name) for name in TASKS}
        scores = [100 * chosen(rows[name], taken[name]) for name in TASKS]
        cost = np.mean([sum(rows[name][c].cost for c in taken[name] if c in rows[name]) for name in TASKS])
        shown.add_row(label, *(f"{score:.1f}" for score in scores), f"{np.mean(scores):.2f}", f"{cost:.0f}")
    Console(width=150).print(shown)


TWIN_EPOCH = 4
"""Epochs after which a trial may be stopped for its twin."""


def with_twins(table: DepthTable, depths: Sequence[int], split: int, at: int = TWIN_EPOCH) -> tuple[float, float, int]:
    """Trial 0 at these freeze depths, the deepest first, each stopped where a deeper one has as low a loss by then.

    Args:
        at: epochs until then; more than there are stop none.

    Returns:
        Test score of the trial that the judge takes, in points; the cost in epochs of training everything; how many
        ran in full.
    """
    assert table.loss is not None  # noqa: S101
    o, f = table.optimizers.index("adam"), table.factors.index(1.0)
    loss, ran, cost, epochs = table.loss[split, :, o, f], list[int](), 0.0, table.val.shape[-1]
    for depth in sorted(depths, reverse=True):
        stopped = at <= epochs and any(loss[deeper, at - 1] <= loss[depth, at - 1] for deeper in ran)
        cost += float(table.epoch_cost[depth]) * (at if stopped else epochs)
        if not stopped:
            ran.append(depth)
    best = max(ran, key=lambda k: (table.val[split, k, o, f, -1], -loss[k, -1]))
    return 100 * float(table.test[table.without(split), best, o, f, -1].mean()), cost, len(ran)


def twins() -> None:
    """Print what depth twins do to the trials that today's search begins with."""
    tables = [read_table(name) for name in TASKS if is_complete(name)]
    shown = Table("trial 0 at three depths", *(t.name for t in tables), "mean", "cost", "in full")
    for label, at in (("all in full", 1000), (f"stopped after epoch {TWIN_EPOCH} for a deeper twin", TWIN_EPOCH)):
        rows = []
        for table in tables:
            depths = [round(share * (table.depths - 1)) for share in (0.5, 1.0, 0.25)]
            rows.append(np.array([with_twins(table, depths, s, at) for s in range(len(table.val))]).mean(0))
        scores, cost, full = np.array(rows).T
        means = (f"{scores.mean():.2f}", f"{cost.mean():.1f}", f"{full.mean():.1f}")
        shown.add_row(label, *(f"{score:.1f}" for score in scores), *means)
    Console(width=150).print(shown)


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
    low, high = interval(gains)
    return f"{gains.mean():+.2f} ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    if sys.argv[1:] in (["portfolios"], ["twins"]):
        portfolios() if sys.argv[1] == "portfolios" else twins()
        sys.exit()
    main(next((int(a.removeprefix("draws=")) for a in sys.argv[1:] if a.startswith("draws=")), 10))
