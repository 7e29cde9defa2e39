"""Do the scorers speak of the task, or only of the network? `python -m benchmarks.evidence_profiles`.

A scorer's *profile* is s(k) over the freeze depths, centred and divided by its spread. Evidence of a task must be alike
on two splits of one task (reliability), unlike on another data set (otherwise it is a fingerprint of the network: one
static table would do as well), and must move towards the known depth on the planted tasks. All are means of Pearson
correlations of profiles, with a bootstrap over tasks, then splits; agreement with the two nulls (training labels
shuffled, random weights) is of the same split. "Residual" takes the fingerprint away first: the mean profile of the
other data sets. Rows go to benchmarks/results/evidence_profiles.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.calibrate_prior import data_set
from benchmarks.depth_tables import TASKS
from benchmarks.evidence_tables import read_evidence
from benchmarks.finished_tables import Floats
from benchmarks.planted_tasks import PLANTED
from benchmarks.replay import interval
from benchmarks.results_file import write_rows
from explain.evidence import SCORERS
from search.evidence.calibration import standardised

__all__ = ["correlation", "main", "profiles"]

DRAWS = 2000  # of the bootstrap
Profiles = dict[str, dict[tuple[str, int], Floats]]  # task -> (null, split) -> profile


def profiles(scorer: str, unit: str = "z") -> Profiles:
    """Every profile of a scorer that is known, none of those without spread.

    Args:
        scorer: its name.
        unit: "z" reads block scores as a search does, in spreads of their own null; "value" above the null's mean.
    """
    found: Profiles = {}
    for task in TASKS:
        for row in read_evidence(task):
            if scorer in row["scorers"]:
                profile = standardised(_depth_scores(row["scorers"][scorer], unit))
                if np.nanstd(profile) > 0:
                    found.setdefault(task, {})[row["null"], row["split"]] = profile
    return found


def _depth_scores(raw: dict[str, Any], unit: str) -> Floats:
    values, null, depths = (
        np.array([np.nan if v is None else v for v in raw[name]], float)
        for name in ("values", "null_mean", "depth_scores")
    )
    if unit == "z" or len(values) == len(depths):  # a scorer of depths has one unit
        return depths
    above = values - null
    return np.concatenate([[0.0], np.cumsum(above - np.nanmean(above))])


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's, over the depths known to both; NaN where either does not vary there."""
    known = np.isfinite(one) & np.isfinite(other)
    a, b = one[known] - one[known].mean(), other[known] - other[known].mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def _within(found: Profiles) -> Iterator[list[float]]:
    """By task, correlations between its splits."""
    for rows in found.values():
        own = [p for (null, _), p in rows.items() if null == "none"]
        yield [correlation(a, b) for a, b in combinations(own, 2)]


def _between(found: Profiles) -> Iterator[list[float]]:
    """By pair of data sets, correlations between their splits; planted tasks are left out."""
    own = {t: [p for (null, _), p in rows.items() if null == "none"] for t, rows in found.items() if t not in PLANTED}
    for one, other in combinations(own, 2):
        if data_set(one) != data_set(other):
            yield [correlation(a, b) for a, b in product(own[one], own[other])]


def _with_null(found: Profiles, null: str) -> Iterator[list[float]]:
    """By task, correlations between the evidence of a split and its null."""
    for rows in found.values():
        yield [
            correlation(p, rows["none", split])
            for (n, split), p in rows.items()
            if n == null and ("none", split) in rows
        ]


def residuals(found: Profiles) -> Profiles:
    """Each task's profiles minus the mean profile of the other data sets."""
    left: Profiles = {}
    for task, rows in found.items():
        others = [
            np.nanmean([p for (null, _), p in of.items() if null == "none"], axis=0)
            for other, of in found.items()
            if other not in PLANTED and data_set(other) != data_set(task)
        ]
        if others:
            left[task] = {key: p - np.mean(others, axis=0) for key, p in rows.items()}
    return left


def _interval(groups: Sequence[list[float]]) -> list[float | None]:
    """Mean of the groups' means, and its 95 % interval; None where there is nothing."""
    rows = [np.array(g)[np.isfinite(g)] for g in groups]
    rows = [r for r in rows if len(r)]
    if not rows:
        return [None, None, None]
    return [round(v, 3) for v in interval(rows, DRAWS)]


def _modes(found: Profiles, task: str) -> list[int]:
    """The depth with the greatest s(k) on each split of a task."""
    return [int(np.nanargmax(p)) for (null, _), p in sorted(found.get(task, {}).items()) if null == "none"]


def _measure(scorer: str, unit: str) -> dict[str, Any]:
    found = profiles(scorer, unit)
    left = residuals(found)
    return {
        "scorer": scorer,
        "unit": unit,
        "same_task": _interval(list(_within(found))),
        "other_data_set": _interval(list(_between(found))),
        "labels_shuffled": _interval(list(_with_null(found, "labels"))),
        "random_weights": _interval(list(_with_null(found, "weights"))),
        "residual_same_task": _interval(list(_within(left))),
        **{task: _modes(found, task) for task in PLANTED},
        **{f"residual_{task}": _modes(left, task) for task in PLANTED},
    }


def main() -> int:
    """Measure every scorer, print, write."""
    names = list(dict.fromkeys(n for task in TASKS for row in read_evidence(task) for n in row["scorers"]))
    if not names:
        print("evidence_profiles: no evidence; run python -m benchmarks.evidence_tables", file=sys.stderr)
        return 2
    by_block = [n for n in names if SCORERS[n].kind == "block"]
    rows = [*(_measure(name, "z") for name in names), *(_measure(name, "value") for name in by_block)]
    columns = ("same_task", "other_data_set", "labels_shuffled", "random_weights", "residual_same_task")
    names = [*PLANTED, *(f"residual_{task}" for task in PLANTED)]
    table = Table("scorer", *(c.replace("_", " ") for c in (*columns, *names)))
    for row in rows:
        cells = ["-" if row[c][0] is None else "{:.2f} ({:.2f} to {:.2f})".format(*row[c]) for c in columns]
        table.add_row(f"{row['scorer']}, {row['unit']}", *cells, *(" ".join(map(str, row[name])) for name in names))
    Console(width=None if sys.stdout.isatty() else 260).print(table)
    write_rows("evidence_profiles", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
