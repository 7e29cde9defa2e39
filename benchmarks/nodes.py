"""Throughput of one and two nodes of one core against as many local workers: `python -m benchmarks.nodes [ROUNDS]`.

A Ray cluster with token authentication, a head without cores and three nodes of one core on this machine: one serves a
search of one worker, two a search of two. Beside it stand `executor=local` with one and with two workers of one thread.
All four keep their workers; in each round each of them in turn trains a trial of everything for every worker, so that
what else the machine does meets all alike. Epochs a second from handing out the trials to their last result; the ratio
to `local` is taken within a round. Rows go to benchmarks/results/nodes.json.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.results_file import write_rows
from benchmarks.student_interval import interval
from search.executor.local import LocalExecutor
from search.executor.pool import WorkerPool
from search.executor.protocol import Failed, Finished, Job, Reported
from search.executor.ray import RayExecutor
from search.settings.compose import compose_settings
from search.trial.preparation import load, split
from search.trial.result import TrialParams
from search.trial.task import Task, build_task

ROUNDS, EPOCHS = 6, 3
LEAST = 0.9  # goal of the ratio
_NODES = 3
_SETTINGS = (
    "data.images=400", "data.size=[96,96]", "data.fit=stretch", f"trainer.epochs={EPOCHS}", "executor=local",
    "executor.threads=1", "trainer.accelerator=cpu",
)  # fmt: skip


def epochs_a_second(executor: WorkerPool, workers: int, turn: int) -> float:
    """Of a trial for each worker, from handing them out to the last result.

    Raises:
        RuntimeError: a trial failed.
    """
    began, left = time.perf_counter(), workers
    for slot in range(workers):
        executor.submit(Job(slot, TrialParams("momentum", 0.1, 0), turn * workers + slot))
    while left:
        event = executor.poll(0.2)
        if isinstance(event, Reported):
            executor.answer(event.slot, "train")
        elif isinstance(event, Failed):
            raise RuntimeError(event.traceback)
        left -= isinstance(event, Finished)
    return workers * EPOCHS / (time.perf_counter() - began)


def measure(task: Task, folder: Path, rounds: int) -> dict[tuple[str, int], list[float]]:
    """(executor, workers) -> epochs a second in each round."""
    import ray
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 200_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    arms: dict[tuple[str, int], LocalExecutor | RayExecutor] = {}
    try:
        for _ in range(_NODES):
            cluster.add_node(num_cpus=1, **memory)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        for workers in (1, 2):
            arms["local", workers] = LocalExecutor(task, cache=folder / "cache", workers=workers)
            arms["ray", workers] = RayExecutor(task, workers=workers, gpus=0.0, threads=1, shared=folder / "studies")
            while arms["ray", workers].capacity < workers:
                arms["ray", workers].poll(0.2)
        found: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
        for turn in range(rounds + 1):
            for (name, workers), executor in arms.items():
                speed = epochs_a_second(executor, workers, turn)
                if turn:  # the first builds the workers' tasks
                    found[name, workers].append(speed)
    finally:
        for executor in arms.values():
            executor.close()
        ray.shutdown()
        cluster.shutdown()
    return found


def main(arguments: list[str]) -> int:
    """Measure, print, write; exit status 1 if a goal is missed."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = compose_settings([f"tracking.root={folder}", *_SETTINGS])
        images = load(settings, Console(quiet=True))
        task = build_task(settings, images, split(settings, images.index), cache=folder / "cache")
        found = {arm: np.asarray(speeds) for arm, speeds in measure(task, folder, rounds).items()}
    table, rows, missed = Table("epochs a second", "median", "ratio, mean (95 %)", "goal"), [], False
    for (executor, workers), speeds in found.items():
        what = f"epochs a second, executor={executor}, {workers} of one core"
        table.add_row(f"executor={executor}, {workers} of one core", f"{np.median(speeds):.3f}")
        rows.append(_row(what, float(np.median(speeds)), "1/s"))
    ratios = {
        f"{workers} nodes / local, {workers} workers": (("ray", workers), ("local", workers)) for workers in (1, 2)
    }
    ratios |= {f"{name}, 2 / 1": ((name, 2), (name, 1)) for name in ("ray", "local")}
    for what, (above, below) in ratios.items():
        shares = found[above] / found[below]
        low, high = interval(shares)
        goal = LEAST if "nodes" in what else None
        missed |= goal is not None and float(shares.mean()) < goal
        table.add_row(what, "", f"{shares.mean():.3f} ({low:.3f} to {high:.3f})", f">= {goal}" if goal else "")
        rows.append(_row(f"throughput: {what}", float(shares.mean()), "ratio", goal) | {"interval": [low, high]})
    Console().print(table)
    write_rows("nodes", [row | {"rounds": rounds} for row in rows])
    return int(missed)


def _row(what: str, value: float, unit: str, goal: float | None = None) -> dict[str, object]:
    return {"what": what, "value": round(value, 4), "unit": unit, "goal": goal, "better": "higher"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
