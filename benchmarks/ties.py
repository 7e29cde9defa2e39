"""What it would cost to call small differences ties: `python -m benchmarks.ties`.

The winner of a search is the complete trial with the best validation score; of equals the deeper freeze, which is
cheaper to train. Here searches are replayed on the depth tables and the winner chosen anew: the deepest freeze whose
score is at most so many points of macro F1, or one standard error of the validation accuracy, below the best. What that
loses on other images, and how much deeper it freezes, goes to benchmarks/results/ties.json; the difference to exact
ties is paired by replay, its interval a bootstrap over splits, then replays. The halving rule leaves few complete
trials to choose from, so the other rules are replayed as well.
"""

from __future__ import annotations

import sys
from typing import Any

import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.finished_tables import is_complete, read_table, tabled
from benchmarks.replay import REPEATS, interval, median, whole
from benchmarks.replay_engine import Replay, Strategy, replay
from benchmarks.results_file import write_rows

__all__ = ["chosen", "main", "standard_error"]

POINTS = (1.0, 2.0)
PRUNERS = {
    "halving": Strategy("halving"),
    "median": Strategy("median", rule=median),
    "none": Strategy("none", rule=whole),
}


def standard_error(score: float, images: int) -> float:
    """Of a share of so many images; that of accuracy, taken for macro F1's."""
    return float((max(score * (1 - score), 0.0) / images) ** 0.5)


def chosen(run: Replay, tolerance: float) -> tuple[int, float]:
    """Freeze depth and quality of the deepest of the trials within `tolerance` of the best validation score."""
    best = max(score for _, score, _ in run.whole)
    depth, _, quality = max((one for one in run.whole if one[1] >= best - tolerance), key=lambda one: (one[0], one[1]))
    return depth, quality


def _rows(name: str, pruner: str) -> list[dict[str, Any]]:
    table = read_table(name)
    runs = [[replay(table, PRUNERS[pruner], p, seed) for seed in range(REPEATS)] for p in range(len(table.val))]
    found = []
    for rule in (*POINTS, "one standard error"):
        lost: list[list[float]] = []
        deeper: list[int] = []
        for of in runs:
            lost.append([])
            for run in of:
                best = max(score for _, score, _ in run.whole)
                within = standard_error(best, table.validation) if isinstance(rule, str) else rule / 100
                exact, other = chosen(run, 0.0), chosen(run, within)
                lost[-1].append(100 * (exact[1] - other[1]))
                deeper.append(other[0] - exact[0])
        row = {
            "task": name,
            "pruner": pruner,
            "rule": rule if isinstance(rule, str) else f"{rule:g} points",
            "splits": len(runs),
        }
        spread = [round(v, 3) for v in interval(lost)]
        found.append(row | {"lost_points": spread, "deeper_blocks": round(sum(deeper) / len(deeper), 2)})
    return found


def main(names: list[str]) -> int:
    """Replay on the tasks named, or on all that have a complete table."""
    try:
        names = [name for name in tabled(names) if is_complete(name)]
    except ValueError as error:
        print(f"ties: {error}", file=sys.stderr)
        return 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = [row for pruner in PRUNERS for name in names for row in _rows(name, pruner)]
    shown = Table("pruner", "task", "tie", "points lost on other images", "blocks deeper")
    for row in rows:
        lost = "{:+.2f} ({:+.2f} to {:+.2f})".format(*row["lost_points"])
        shown.add_row(row["pruner"], row["task"], row["rule"], lost, f"{row['deeper_blocks']:+.1f}")
    Console(width=None if sys.stdout.isatty() else 100).print(shown)
    write_rows("ties", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
