"""What the driver itself takes for a trial as the study grows, and its memory: `python -m benchmarks.driver [TRIALS]`.

The real study (journal, TPE, halving rule) and the real MLflow store, with an executor whose trials take no time: each
reports three epochs of made-up scores. Rows go to benchmarks/results/driver.json.
"""

from __future__ import annotations

import itertools
import math
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.results_file import write_rows
from benchmarks.table_executor import SilentListener, TableExecutor
from search.settings.schema import Settings
from search.study.driver import SearchStudy
from search.study.opening import load_or_create
from search.study.progress import StudyListener
from search.tracking.tracker import Tracker
from search.trial.result import TrialParams
from search.trial.space import Space

EPOCHS = 3


def made_up_curve(params: TrialParams) -> list[float]:
    """A smooth landscape with its best at factor 2 and depth 3."""
    top = math.exp(-(math.log(params.lr_factor / 2) ** 2) - ((params.freeze_depth - 3) / 8) ** 2)
    return [top * (epoch + 1) / EPOCHS for epoch in range(EPOCHS)]


class Stopwatch(SilentListener):
    """Listener that notes when each trial begins: between two of them lies all that the driver does for one.

    Attributes:
        started: seconds.
        peaks: MiB, the largest resident set of this process until then.
    """

    def __init__(self) -> None:
        self.started: list[float] = []
        self.peaks: list[float] = []

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:  # noqa: ARG002
        """See `StudyListener`."""
        self.started.append(time.perf_counter())
        self.peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def made_up_study(
    tracker: Tracker,
    root: Path,
    trials: int,
    listener: StudyListener | None = None,
    executor: TableExecutor | None = None,
) -> str:
    """A study of trials that cost nothing, in a store of MLflow; returns the id of its parent run."""
    settings = Settings()
    settings = replace(
        settings,
        search=replace(settings.search, trials=trials, pruner="halving"),
        trainer=replace(settings.trainer, epochs=EPOCHS),
    )
    space = Space(settings.space.optimizers, settings.space.lr_factor, (0, 8), TrialParams("momentum", 1.0, 4))
    parent = tracker.start_parent("driver", {}, {})
    study, _ = load_or_create(root / "studies" / "driver.journal", "driver", {}, fresh=False)
    SearchStudy(settings, space, study, tracker, parent, listener or Stopwatch()).run(
        executor or TableExecutor(made_up_curve, lambda _: 0.0)
    )
    tracker.finish(parent, "FINISHED")
    return parent


def measure(trials: int) -> tuple[list[float], list[float]]:
    """Seconds of each trial of a study of that many, and the peak memory in MiB when each began."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        made_up_study(Tracker(Path(folder), "driver"), Path(folder), trials, watch)
    return [after - before for before, after in zip(watch.started, watch.started[1:], strict=False)], watch.peaks


def main(arguments: list[str]) -> int:
    """Measure, print, write; exit status 1 if a goal is missed."""
    trials = int(arguments[0]) if arguments else 1000
    seconds, peaks = measure(trials)
    edges = [0, *[n for n in (10, 30, 100, 300, 1000) if n <= trials]]
    rows = []
    table = Table("trials of the study", "driver seconds a trial, median")
    medians = {}
    for low, high in itertools.pairwise(edges):
        medians[high] = statistics.median(seconds[low:high])
        table.add_row(f"{low + 1} to {high}", f"{medians[high]:.3f}")
        what = f"driver seconds a trial, trials {low + 1} to {high}"
        rows.append({"what": what, "value": round(medians[high], 4), "unit": "s", "goal": None, "better": "lower"})
    growth = medians[edges[-1]] / medians[edges[2]]
    what = f"driver seconds a trial: trials {edges[-2] + 1} to {edges[-1]} / trials {edges[1] + 1} to {edges[2]}"
    rows.append({"what": what, "value": round(growth, 2), "unit": "ratio", "goal": 1.5, "better": "lower"})
    table.add_row("last / second", f"{growth:.2f} (goal <= 1.5)")
    early = min(100, trials)
    memory = peaks[-1] / peaks[early - 1]
    for at in sorted({early, trials}):
        what = f"peak memory of the driver at trial {at}"
        rows.append({"what": what, "value": round(peaks[at - 1], 1), "unit": "MiB", "goal": None, "better": "lower"})
        table.add_row(what, f"{peaks[at - 1]:.0f} MiB")
    what = f"peak memory of the driver: trial {trials} / trial {early}"
    rows.append({"what": what, "value": round(memory, 3), "unit": "ratio", "goal": 1.1, "better": "lower"})
    table.add_row("the same, as a ratio", f"{memory:.3f} (goal <= 1.1)")
    Console().print(table)
    write_rows("driver", rows)
    return int(growth > 1.5 or memory > 1.1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
