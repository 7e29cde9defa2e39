"""What it would cost to call small differences ties: `python -m benchmarks.ties`.

The winner of a search is the complete trial with the best validation score; of equals the deeper freeze, which is
cheaper to train. Here searches are replayed on the depth tables and the winner chosen anew: the deepest freeze whose
score is at most so many points of macro F1, or one standard error of the validation accuracy, below the best. What that
loses on other images, and how much deeper it freezes, goes to benchmarks/results/ties.json; the difference to exact
ties is paired by replay, its interval a bootstrap over splits, then replays. The halving rule leaves few complete
trials to choose from, so the other rules are replayed as well.

Within a trial, of epochs with equal validation scores the earliest counts, which is the cheapest to refit for. What the
latest of them would gain on the test images, over all configurations that have such epochs and over those that are best
on validation, is in the same file (the deepest of several winners; the interval is a bootstrap over splits).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.finished_tables import Floats, is_complete, read_table, tabled
from benchmarks.replay import MEDIAN, NO_PRUNING, REPEATS, interval
from benchmarks.results_file import write_rows
from benchmarks.table_search import Replay, Strategy, replay

__all__ = ["chosen", "later_epochs", "main", "standard_error"]

POINTS = (1.0, 2.0)
PRUNERS = {
    "halving": Strategy("halving"),
    "median": Strategy("median", MEDIAN),
    "none": Strategy("none", NO_PRUNING),
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


def later_epochs(val: Floats, test: Floats) -> tuple[list[float], float]:
    """Points gained on test images by the latest of the best epochs instead of the earliest, in one split's table.

    Args:
        val: (depths, ..., epochs) validation scores.
        test: likewise of the test images.

    Returns:
        Of every configuration with more than one best epoch, and of the deepest winner.
    """
    tied = val >= val.max(axis=-1, keepdims=True) - 1e-9
    first = tied.argmax(axis=-1)
    last = tied.shape[-1] - 1 - tied[..., ::-1].argmax(axis=-1)
    scores = [np.take_along_axis(test, epoch[..., None], axis=-1)[..., 0] for epoch in (first, last)]
    gained = 100 * (scores[1] - scores[0])
    best = val.max(axis=-1)
    winners = best >= best.max() - 1e-9
    deepest = np.flatnonzero(winners.reshape(len(val), -1).any(axis=1))[-1]
    return gained[first != last].tolist(), float(gained[deepest][winners[deepest]].mean())


def _epochs(name: str) -> list[dict[str, Any]]:
    table = read_table(name)
    found = [later_epochs(val, test) for val, test in zip(table.val, table.test, strict=True)]
    several = [gained for gained, _ in found if gained]
    common = {"task": name, "rule": "latest of equal epochs", "splits": len(found)}
    rows = []
    if several:
        spread = [round(v, 3) for v in interval(several)]
        count = sum(map(len, several))
        rows.append({**common, "of": "configurations", "configurations": count, "gained_points": spread})
    spread = [round(v, 3) for v in interval([[winner] for _, winner in found])]
    return [*rows, {**common, "of": "winners", "gained_points": spread}]


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
    epochs = [row for name in names for row in _epochs(name)]
    later = Table("task", "of", "points gained by the latest of equal epochs")
    for row in epochs:
        gained = "{:+.2f} ({:+.2f} to {:+.2f})".format(*row["gained_points"])
        later.add_row(row["task"], f"{row.get('configurations', '')} {row['of']}".strip(), gained)
    Console(width=None if sys.stdout.isatty() else 100).print(shown, later)
    write_rows("ties", rows + epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
