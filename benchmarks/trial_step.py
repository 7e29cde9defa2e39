"""A trial's training step against a bare PyTorch loop, by freeze depth: `python -m benchmarks.trial_step`.

The bare loop has the activations of the cut in memory as float32 batches and does nothing but forward, loss, backward
and step over the same thawed blocks with the same optimizer. The trial goes through Lightning, reads its activations
from the cache (rounded, memory-mapped) and keeps its sums. Both are timed over the same number of epochs in turn; the
time of a trial's epoch is that of a fit of several epochs minus that of a fit of one, so that building it does not
count. Beside each time stands its limit: counted operations at the rate of a large matrix product on this machine.
Rows go to benchmarks/results/trial_step.json.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from benchmarks.product_rate import product_rate
from benchmarks.results_file import write_rows
from lightning_modules.training.allocator import keep_freed_memory
from lightning_modules.training.classifier import Classifier
from lightning_modules.training.datamodule import ActivationBatches
from search.settings.compose import compose_settings
from search.trial.preparation import load, split
from search.trial.result import TrialParams
from search.trial.task import Task, build_task
from search.trial.training import train_final

DEPTHS = (0, 2, 4, 6, 8)
IMAGES, EPOCHS, ROUNDS = 320, 3, 5


def bare_loop(task: Task, depth: int, rows: object, epochs: int) -> Callable[[], None]:
    """The loop without anything of ours."""
    labels = task.index.labels
    batches = [
        (x.clone(), y)
        for x, y, _ in ActivationBatches(task.cache, depth, rows, labels[rows], batch_size=32)  # type: ignore
    ]
    model = Classifier(task.start_net(rows, depth), depth, "momentum", 0.01)  # type: ignore[arg-type]
    optimizer = model.configure_optimizers()
    net = model.net.train()

    def run() -> None:
        for _ in range(epochs):
            for x, y in batches:
                optimizer.zero_grad()
                F.cross_entropy(net.suffix(x, depth), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return run


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> int:
    """Measure, print, write; exit status 1 if a goal is missed."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        settings = compose_settings(
            [f"tracking.root={folder}", "data.images=600", "data.size=[96,96]", "data.fit=stretch"]
        )
        images = load(settings, Console(quiet=True))
        splits = split(settings, images.index)
        task = build_task(settings, images, splits, cache=Path(folder) / "cache")
        rows, rate = splits.folds[0].train[:IMAGES], product_rate()
        table = Table("freeze depth", "trial step", "bare step", "ratio", "goal", "limit")
        out, missed = [], False
        for depth in DEPTHS:
            params = TrialParams("momentum", 0.01, depth)

            def fit(epochs: int, params: TrialParams = params) -> object:
                return train_final(task, params, 0, rows, epochs)

            bare = bare_loop(task, depth, rows, EPOCHS)
            fit(EPOCHS + 1), bare()
            trial_times, bare_times = [], []
            for _ in range(ROUNDS):
                trial_times.append(timed(lambda: fit(EPOCHS + 1)) - timed(lambda: fit(1)))
                bare_times.append(timed(bare))
            steps = EPOCHS * IMAGES / 32
            trial, plain = (1e3 * statistics.median(times) / steps for times in (trial_times, bare_times))
            limit = 1e3 * 32 * 3 * sum(task.flops[depth:]) / rate
            goal = 1.10 if depth <= task.net.num_blocks // 2 else None
            missed |= goal is not None and trial / plain > goal
            table.add_row(
                str(depth), f"{trial:.1f} ms", f"{plain:.1f} ms", f"{trial / plain:.2f}",
                f"<= {goal}" if goal else "", f"{limit:.1f} ms",
            )  # fmt: skip
            out.append(
                {
                    "what": f"trial step / bare PyTorch step, freeze depth {depth}",
                    "value": round(trial / plain, 3),
                    "unit": "ratio",
                    "goal": goal,
                    "better": "lower",
                    "trial_ms": round(trial, 2),
                    "bare_ms": round(plain, 2),
                    "limit_ms": round(limit, 2),
                }
            )
        Console().print(table)
    write_rows("trial_step", out)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
