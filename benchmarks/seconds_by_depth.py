"""Seconds of a trial by freeze depth against what must be computed: `python -m benchmarks.seconds_by_depth`.

The model of an epoch's work is F_prefix / epochs + 3 F_suffix a training image (the prefix once for all epochs, the
suffix forward and twice backward) and F_suffix an image that is validated or re-estimates batch-norm. One rate,
operations a second, is fitted to all depths; the table shows measured over predicted seconds, for the first trial at a
depth (which fills the cache and fits the head) and for the second. Rows go to benchmarks/results/seconds_by_depth.json.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.product_rate import product_rate
from benchmarks.results_file import write_rows
from lightning_modules.training.allocator import keep_freed_memory
from search.settings.compose import compose_settings
from search.trial.preparation import load, split
from search.trial.result import TrialParams
from search.trial.task import build_task, statistics_rows
from search.trial.training import run_trial

EPOCHS = 5
_LEAST = 0.1  # seconds: a head alone is a matrix product, and a ratio to nearly nothing says nothing


def main() -> int:
    """Measure, print, write."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        settings = compose_settings(
            [
                f"tracking.root={folder}",
                "data.images=600",
                "data.size=[96,96]",
                "data.fit=stretch",
                f"trainer.epochs={EPOCHS}",
            ]
        )
        images = load(settings, Console(quiet=True))
        splits = split(settings, images.index)
        task = build_task(settings, images, splits, cache=Path(folder) / "cache")
        fold = splits.folds[0]
        scored = len(fold.val) + len(statistics_rows(settings, fold.train))
        depths = range(task.net.num_blocks + 1)
        seconds = np.zeros((len(depths), 2))
        work = np.zeros((len(depths), 2))
        task.warm_head(fold.train, task.net.num_blocks)
        run_trial(task, TrialParams("momentum", 0.1, task.net.num_blocks), 0)  # warms up threads and allocator
        for k in depths:
            suffix, prefix = sum(task.flops[k:]), sum(task.flops[:k])
            training = EPOCHS * (3 * suffix * len(fold.train) + suffix * scored)
            head = suffix * (2 * len(fold.train) + scored) if k < task.net.num_blocks else 0
            work[k] = training + prefix * (len(fold.train) * EPOCHS + scored) + head, training
            for turn in range(2):
                seconds[k, turn] = run_trial(task, TrialParams("momentum", 0.1, k), turn).seconds
    rate = float((work * seconds).sum() / (seconds**2).sum())
    limit = product_rate()
    table = Table(
        "freeze depth",
        "first trial",
        "predicted",
        "limit",
        "second trial",
        "predicted",
        "limit",
        "measured / predicted",
    )
    rows = []
    for k in depths:
        predicted = work[k] / rate
        table.add_row(
            str(k),
            *(f"{value[turn]:.2f} s" for turn in range(2) for value in (seconds[k], predicted, work[k] / limit)),
            ", ".join(
                f"{seconds[k, turn] / predicted[turn]:.2f}" if predicted[turn] > _LEAST else "-" for turn in range(2)
            ),
        )
        rows += [
            {
                "what": f"seconds of the {name} trial at freeze depth {k} / predicted from operations",
                "value": round(float(seconds[k, turn] / predicted[turn]), 3) if predicted[turn] > _LEAST else None,
                "unit": "ratio",
                "goal": None,
                "better": "lower",
                "seconds": round(float(seconds[k, turn]), 3),
                "limit_seconds": round(float(work[k, turn] / limit), 3),
            }
            for turn, name in enumerate(("first", "second"))
        ]
    said = f"one rate for all: {rate / 1e9:.1f} G operations a second; limit: {limit / 1e9:.1f}, of a matrix product"
    Console().print(table, said, sep="\n")
    write_rows("seconds_by_depth", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
