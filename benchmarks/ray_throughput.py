"""What a second machine brings: `python -m benchmarks.ray_throughput [ROUNDS]`.

The same search (six trials of four epochs at one depth, none stopped) by workers of one core: on one and on two
nodes of a Ray cluster of this machine, and by as many worker processes of `executor=local`. Throughput is epochs a
second between the first and the last that MLflow has: it holds what the driver, reports and new trials cost, but not
the start of processes, which is in the seconds of the whole search beside it. Executors alternate, and each round turns
the order around. Needs as many idle cores as workers. Rows go to benchmarks/results/ray_throughput.json.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.results_file import write_rows
from benchmarks.whole_search import whole_search
from tests.search.executor.ray_nodes import ENVIRONMENT, Nodes

GOAL = 0.9
WORKERS = (1, 2)
SETTINGS = (
    "data.simulated.images=300", "search.trials=6", "search.pruner=none", "search.stop=never", "search.refit=false",
    "search.members=1", "space.default_depths=1", "space.freeze_depth=[2,2]", "trainer.epochs=4",
    "tracking.report=false", "executor.threads=1",
)  # fmt: skip


def measure(executor: str, workers: int, address: str) -> tuple[float, float]:
    """Epochs a second of a search, and its wall seconds."""
    on_ray = [f"executor.address={address}"] if executor == "ray" else []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _, seconds = whole_search(
            "throughput", [*SETTINGS, f"executor={executor}", f"executor.workers={workers}", *on_ray], root
        )
        with closing(sqlite3.connect(root / "mlflow.db")) as store:
            first, last, epochs = store.execute(
                "SELECT min(timestamp), max(timestamp), count(*) FROM metrics WHERE key = 'epoch_seconds'"
            ).fetchone()
    return 1000 * (epochs - 1) / (last - first), seconds


def main(arguments: list[str]) -> int:
    """Measure, print, write; exit status 1 if the goal is missed."""
    rounds = int(arguments[0]) if arguments else 2
    os.environ |= ENVIRONMENT  # before Ray is loaded, which reads them once
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for workers in WORKERS:
        nodes = Nodes(workers)
        try:
            for turn in range(rounds):
                for executor in ("local", "ray") if turn % 2 == 0 else ("ray", "local"):
                    found.setdefault((executor, workers), []).append(measure(executor, workers, nodes.address))
        finally:
            nodes.close()
    rows = []
    table = Table("workers of one core", "epochs a second, local", "ray", "ray / local", "whole search, ray / local")
    missed = False
    for workers in WORKERS:
        local, ray = (
            [statistics.mean(one[kind] for one in found[executor, workers]) for kind in (0, 1)]
            for executor in ("local", "ray")
        )
        ratio = ray[0] / local[0]
        missed |= ratio < GOAL
        table.add_row(str(workers), f"{local[0]:.3f}", f"{ray[0]:.3f}", f"{ratio:.2f}", f"{ray[1] / local[1]:.2f}")
        for what, value, unit, goal, better in (
            ("epochs a second, local", local[0], "1/s", None, "higher"),
            ("epochs a second, ray", ray[0], "1/s", None, "higher"),
            ("epochs a second, ray / local", ratio, "ratio", GOAL, "higher"),
            ("seconds of the whole search, ray / local", ray[1] / local[1], "ratio", None, "lower"),
        ):
            row = {"what": f"{workers} workers of one core: {what}", "value": round(value, 4), "unit": unit}
            rows.append({**row, "goal": goal, "better": better})
    Console().print(table)
    write_rows("ray_throughput", rows)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
