"""Do the scorers order the freeze depths as training does? `python -m benchmarks.depth_ranks`.

For every complete split of the depth tables, a(k) is the quality of the configuration with the best validation score at
depth k: its mean test score over the *other* splits (its own test score where a table has one split). Reported for each
scorer, with the priors that look at no image beside them:

- Kendall's tau-b between s(k) and a(k), by task; pooled over data sets (tasks of the same pictures are one), with a
  permutation test: the depths of a task are exchanged, the same way on all its splits, and the pooled tau computed
  again; p is given as it is and by Holm for as many scorers as there are;
- regret a(k*) - a(k_hat) in points: k_hat is the scorer's favourite, k* the best depth by half of the other splits,
  both scored on the other half (with one split or two: k* is the best by validation). Where a task has more also in
  units of the standard deviation of a(k*) over single splits, and how often it is below one such unit (the tie rate).

Rows go to benchmarks/results/depth_ranks.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from benchmarks.calibrate_prior import calibration_without, data_set, depth_gains, evidence_rows, prior_of
from benchmarks.finished_tables import TABLES, DepthTable, Floats, is_complete, read_table
from benchmarks.planted_tasks import PLANTED
from benchmarks.results_file import write_rows
from search.significance import holm

__all__ = ["main", "permutation_p", "pooled", "regrets", "tau"]

PERMUTATIONS = 2000
Pairs = dict[str, list[tuple[Floats, Floats]]]  # task -> by split (s, a)


def tau(scores: Floats, quality: Floats) -> float:
    """Kendall's tau-b over the depths that have a score; NaN where either does not vary."""
    known = np.isfinite(scores)
    return float(kendalltau(scores[known], quality[known]).statistic)


def pooled(by_task: Mapping[str, float]) -> float:
    """Mean over data sets of the means over their tasks; tasks without a value do not count."""
    groups: dict[str, list[float]] = {}
    for task, value in by_task.items():
        if np.isfinite(value):
            groups.setdefault(task if task in PLANTED else data_set(task), []).append(value)
    return float(np.mean([np.mean(of) for of in groups.values()])) if groups else float("nan")


def _by_task(pairs: Pairs, orders: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]] | None = None) -> dict[str, float]:
    found = {}
    for task, of in pairs.items():
        values = [tau(s[orders[task]] if orders else s, a) for s, a in of]
        finite = [value for value in values if np.isfinite(value)]
        found[task] = float(np.mean(finite)) if finite else float("nan")
    return found


def permutation_p(pairs: Pairs, seed: int = 0, draws: int = PERMUTATIONS) -> float:
    """Share of exchanges of the depths whose pooled tau is at least as far from 0, the observed one among them."""
    rng = np.random.default_rng(seed)
    observed = pooled(_by_task(pairs))
    if not np.isfinite(observed):
        return float("nan")
    depths = {task: len(of[0][1]) for task, of in pairs.items()}
    extreme = sum(
        abs(pooled(_by_task(pairs, {task: rng.permutation(n) for task, n in depths.items()}))) >= abs(observed) - 1e-12
        for _ in range(draws)
    )
    return (extreme + 1) / (draws + 1)


def regrets(table: DepthTable, favourites: Sequence[int]) -> tuple[list[float], float]:
    """Regret of the favourite depth of each split in points, and the standard deviation of one split's a(k*).

    Args:
        table: of the task.
        favourites: k_hat by split.

    Returns:
        Regrets, and the standard deviation in points; NaN with fewer than three splits, whose others have no halves.
    """
    found, alone = [], []
    if len(table.val) < 3:
        for place, favourite in enumerate(favourites):
            gains = depth_gains(table, place)
            best = np.unravel_index(table.val[place].argmax(), table.val.shape[1:])[0]
            found.append(100 * float(gains[best] - gains[favourite]))
        return found, float("nan")
    for place, favourite in enumerate(favourites):
        others = table.without(place)
        halves = others[::2], others[1::2]
        both = []
        for part, rest in (halves, halves[::-1]):
            chosen, scored = (depth_gains(table, place, of) for of in (part, rest))
            both.append(100 * float(scored[int(chosen.argmax())] - scored[favourite]))
        found.append(float(np.mean(both)))
        best = int(depth_gains(table, place).argmax())
        alone.append(100 * float(depth_gains(table, place, np.array([place]))[best]))
    return found, float(np.std(alone, ddof=1))


def _profiles() -> Iterator[tuple[str, str, dict[int, Floats]]]:
    """(scorer, task, s(k) by split) of every complete table that has evidence."""
    names = sorted(folder.name for folder in TABLES.iterdir() if folder.is_dir() and is_complete(folder.name))
    rows = {name: evidence_rows(name) for name in names}
    everything = [row for of in rows.values() for row in of.values()]
    for task, of in rows.items():
        calibration = calibration_without(data_set(task), everything)
        for name in sorted({name for row in of.values() for name in row.scores} | {"evidence"}):
            if name in ("static", "evidence"):  # what a search would make of them, from other data sets' tables
                if calibration is not None:
                    yield name, task, {split: prior_of(calibration, name, row) for split, row in of.items()}
            else:
                yield name, task, {split: row.scores[name] for split, row in of.items() if name in row.scores}


def _measure(scorer: str, profiles: Mapping[str, dict[int, Floats]]) -> dict[str, Any]:
    pairs: Pairs = {}
    lost: dict[str, Any] = {}
    for task, of in profiles.items():
        table = read_table(task)
        known = {s: of[s] for s in table.splits if s in of and np.isfinite(of[s]).any()}
        if len(known) < len(table.splits):
            continue
        pairs[task] = [(s, depth_gains(table, table.splits.index(split))) for split, s in known.items()]
        points, spread = regrets(table, [int(np.nanargmax(s)) for s in known.values()])
        lost[task] = {"points": round(float(np.mean(points)), 2)}
        if np.isfinite(spread):
            lost[task] |= {
                "split_sd": round(spread, 2),
                "in_split_sd": round(float(np.mean(points)) / spread, 2),
                "tie_rate": round(float(np.mean(np.array(points) < spread)), 2),
            }
    taus = _by_task(pairs)
    natural = {task: of for task, of in pairs.items() if task not in PLANTED}
    return {
        "scorer": scorer,
        "tau": {task: round(value, 3) if np.isfinite(value) else None for task, value in taus.items()},
        "pooled_tau": _rounded(pooled({task: taus[task] for task in natural})),
        "p": _rounded(permutation_p(natural)),
        "pooled_tau_planted": _rounded(pooled({task: taus[task] for task in pairs if task in PLANTED})),
        "regret": lost,
    }


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def main() -> int:
    """Measure every scorer, print, write."""
    found: dict[str, dict[str, dict[int, Floats]]] = {}
    for scorer, task, of in _profiles():
        found.setdefault(scorer, {})[task] = of
    if not found:
        print("depth_ranks: no complete table with evidence; see benchmarks.evidence_tables", file=sys.stderr)
        return 2
    rows = [_measure(scorer, profiles) for scorer, profiles in found.items()]
    known = [row for row in rows if row["p"] is not None]
    adjusted = dict(zip((row["scorer"] for row in known), holm([row["p"] for row in known]), strict=True))
    for row in rows:
        row["p_holm"] = round(adjusted[row["scorer"]], 4) if row["scorer"] in adjusted else None
    tasks = sorted({task for row in rows for task in row["tau"]})
    shown = Table("scorer", *(f"tau {task}" for task in tasks), "pooled", "p", "Holm", "regret neu_10 / SD", "ties")
    for row in rows:
        cells = ["-" if row["tau"].get(task) is None else f"{row['tau'][task]:+.2f}" for task in tasks]
        cells += ["-" if row[key] is None else f"{row[key]:+.2f}" for key in ("pooled_tau",)]
        cells += ["-" if row[key] is None else f"{row[key]:.3f}" for key in ("p", "p_holm")]
        of = row["regret"].get("neu_10", {})
        cells += [f"{of.get('points', float('nan')):.1f} / {of.get('split_sd', float('nan')):.1f}"]
        shown.add_row(row["scorer"], *cells, f"{of.get('tie_rate', float('nan')):.0%}")
    Console(width=None if sys.stdout.isatty() else 200).print(shown)
    write_rows("depth_ranks", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
