"""May "evidence helps" be claimed? `python -m benchmarks.evidence_claim`, from the rows of `benchmarks.replay`.

For every prior, by how many points it lowers the winner's regret and by what part it changes the cost to within one
point, against the same search without a prior, paired by split and seed, with a 95 % interval by a bootstrap over
tasks, splits and replays (replays of one table are not independent). The claim holds if the interval of the reduction
against the best of the competitors (static, deepest, probe, LogME, RGN) lies above 0. Rows go to
benchmarks/results/evidence_claim.json.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.finished_tables import Floats
from benchmarks.planted_tasks import PLANTED
from benchmarks.results_file import read_rows, write_rows

__all__ = ["main", "reduction"]

PLAIN = "TPE + promotion (ours)"
COMPETITORS = ("static", "deepest", "linear_probe", "logme", "auto_rgn")


def reduction(
    before: Mapping[str, Floats], after: Mapping[str, Floats], draws: int = 2000
) -> tuple[float, float, float]:
    """Mean of before - after over tasks, and its 95 % interval.

    Args:
        before: by task, regret in points, (splits, replays).
        after: the same of another strategy, with the same seeds.
        draws: of the bootstrap over tasks, then splits, then replays.
    """
    differences = [before[task] - after[task] for task in before if task in after]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        parts = []
        for task in rng.integers(len(differences), size=len(differences)):
            found = differences[task]
            splits = found[rng.integers(len(found), size=len(found))]
            parts.append(np.mean([rng.choice(row, len(row)).mean() for row in splits]))
        means.append(np.mean(parts))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.mean([d.mean() for d in differences])), float(low), float(high)


def _regrets(rows: Sequence[Mapping[str, Any]], strategy: str) -> dict[str, Floats]:
    return {row["task"]: np.array(row["regrets"]) for row in rows if row["strategy"] == strategy}


def main() -> int:
    """Measure every prior, print, write."""
    rows = [row for row in read_rows("replay") if row["task"] not in PLANTED]
    names = list(dict.fromkeys(row["strategy"] for row in rows if row["strategy"].startswith("prior: ")))
    if not names:
        print("evidence_claim: no replay with priors; run python -m benchmarks.replay", file=sys.stderr)
        return 2
    plain = _regrets(rows, PLAIN)
    best = min(COMPETITORS, key=lambda name: np.mean([r.mean() for r in _regrets(rows, f"prior: {name}").values()]))
    table = Table(
        "prior", "regret lowered, points", f"against {best}, points", "cost to within 1 point / without prior"
    )
    out = []
    for name in names:
        own = _regrets(rows, name)
        lowered, against = reduction(plain, own), reduction(_regrets(rows, f"prior: {best}"), own)
        reach = {row["task"]: row["reach"][0] for row in rows if row["strategy"] == name}
        without = {row["task"]: row["reach"][0] for row in rows if row["strategy"] == PLAIN}
        ratio = float(np.exp(np.mean([np.log(reach[task] / without[task]) for task in reach])))
        cells = ["{:+.2f} ({:+.2f} to {:+.2f})".format(*found) for found in (lowered, against)]
        table.add_row(name.removeprefix("prior: "), *cells, f"{ratio:.2f}")
        out.append(
            {
                "prior": name.removeprefix("prior: "),
                "tasks": sorted(own),
                "lowers_regret_points": [round(v, 3) for v in lowered],
                "against_best_competitor": best,
                "against_points": [round(v, 3) for v in against],
                "cost_ratio": round(ratio, 3),
            }
        )
    Console(width=None if sys.stdout.isatty() else 140).print(f"Tasks: {', '.join(plain)}", table, sep="\n")
    write_rows("evidence_claim", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
