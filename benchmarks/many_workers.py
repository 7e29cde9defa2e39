"""How many workers one driver keeps busy: `python -m benchmarks.many_workers [WORKERS ...]`.

The real driver, study (journal, TPE, halving rule) and MLflow store; workers are simulated: a trial trains nothing, but
each of its three epochs takes 12 s less one for each frozen block, on the real clock, and its report waits for the
driver's answer as a worker's does. Four trials a worker. Rows go to benchmarks/results/many_workers.json.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.driver import made_up_curve, made_up_study
from benchmarks.results_file import read_rows, write_rows
from benchmarks.table_executor import TableExecutor
from search.executor.protocol import Event, Job
from search.tracking.tracker import Tracker

WORKERS = (1, 8, 64, 256)
TRIALS_A_WORKER = 4
EPOCH_SECONDS = 12.0
MOST_SECONDS, LEAST_BUSY = 0.05, 0.95  # goals at 64 workers


class TimedExecutor(TableExecutor):
    """Lets each epoch take its time.

    Attributes:
        driver: seconds between two polls, in which the driver worked.
        asked: when each job came.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(made_up_curve, lambda depth: EPOCH_SECONDS - depth, workers=workers)
        self.driver = 0.0
        self.asked: list[float] = []
        self._epochs: list[tuple[float, float]] = []  # begin, seconds
        self._polled = time.monotonic()

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        self.asked.append(time.monotonic())
        super().submit(job)

    def poll(self, timeout: float) -> Event | None:
        """See `Executor.poll`."""
        self.driver += time.monotonic() - self._polled
        next_at = self._events[0][0] if self._events else float("inf")
        time.sleep(max(0.0, min(timeout, next_at - time.monotonic())))
        event = super().poll(timeout) if next_at <= time.monotonic() else None
        self._polled = time.monotonic()
        return event

    def busy(self, until: float) -> float:
        """Seconds of all workers in which one trained, until then."""
        return sum(max(0.0, min(seconds, until - begin)) for begin, seconds in self._epochs)

    def _happens(self, after: float, event: Event) -> None:
        self._now = time.monotonic()
        if after:
            self._epochs.append((self._now, after))
        super()._happens(after, event)


def measure(workers: int) -> tuple[int, float, float, float]:
    """Trials, driver seconds and seconds of its processor a trial, and the share of time in which workers trained.

    The share is taken until the last job is given out: after that there is nothing to keep them busy with.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    executor, trials = TimedExecutor(workers), max(TRIALS_A_WORKER * workers, 6)
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(Path(folder), "driver")
        began, computed = time.monotonic(), time.process_time()
        made_up_study(tracker, Path(folder), trials, executor=executor)
        computed = time.process_time() - computed
    last = executor.asked[-1]
    share = executor.busy(last) / (workers * (last - began)) if workers > 1 else executor.busy(last) / (last - began)
    return trials, executor.driver / trials, computed / trials, share


def main(arguments: list[str]) -> int:
    """Measure, print, write; exit status 1 if a goal is missed."""
    asked = [int(one) for one in arguments] or list(WORKERS)
    table = Table("workers", "trials", "driver ms a trial", "of these computing", "workers busy")
    rows = [row for row in read_rows("many_workers") if not any(row["what"].startswith(f"{n} workers:") for n in asked)]
    missed = False
    for workers in asked:
        trials, seconds, computing, share = measure(workers)
        table.add_row(str(workers), str(trials), f"{seconds * 1000:.0f}", f"{computing * 1000:.0f}", f"{share:.3f}")
        goals = (MOST_SECONDS, LEAST_BUSY) if workers == 64 else (None, None)
        missed |= workers == 64 and (seconds > MOST_SECONDS or share < LEAST_BUSY)
        for what, value, unit, goal, better in (
            ("driver seconds a trial", seconds, "s", goals[0], "lower"),
            ("of these computing", computing, "s", None, "lower"),
            ("share of time in which workers trained", share, "ratio", goals[1], "higher"),
        ):
            row = {"what": f"{workers} workers: {what}", "value": round(value, 4), "unit": unit}
            rows.append({**row, "goal": goal, "better": better})
    Console().print(table)
    write_rows("many_workers", rows)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
