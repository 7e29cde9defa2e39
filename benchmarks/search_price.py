"""What a whole search costs in plain fine-tunings: `python -m benchmarks.search_price [TASK ...] [key=value ...]`.

The search runs through the command line in an empty tracking root, start-up, caches, refit and test included. Before
and after it, one plain Lightning fine-tuning (`benchmarks.plain_finetuning`) trains on the same images for as many
epochs; the faster of loading in this process and in two workers is taken. Beside both times stands their limit: the
operations that the training must do (of the search, what its trials and refits were charged in epochs of training
everything) at the rate of a large matrix product on this machine. Rows go to benchmarks/results/search_price.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.depth_tables import CACHE
from benchmarks.planted_tasks import PLANTED, write_planted
from benchmarks.product_rate import product_rate
from benchmarks.real_images import DATA
from benchmarks.results_file import read_rows, write_rows
from search import load_study

_SEEN = ("data.size=[96,96]", "data.fit=stretch")  # of the committed results, whatever the default is now
_NEU = ("data=manifest", "data.path={data}/neu/manifest.csv", "data.test=rest", *_SEEN)
TASKS = {
    "simulated": (_SEEN, 3.0),
    "neu_10": ((*_NEU, "data.max_train_per_class=10"), 3.0),
    "neu_150": ((*_NEU, "data.max_train_per_class=150"), 3.0),
    # Its best freeze depth is the deepest, by construction.
    "planted_L": (
        (
            "data=manifest", "data.path={made}/planted_L/manifest.csv", "data.test=rest",
            "data.max_train_per_class=150", *_SEEN,
        ),
        1.0,
    ),
}  # fmt: skip


def write_lists(overrides: list[str], file: Path) -> tuple[int, float, float]:
    """Files and labels of training and validation images as the search splits them.

    Returns:
        The epochs of a trial; the operations of an epoch in which everything is trained (forward and backward, three
        times a forward pass); images that a refit is shown / those that a trial is, in all epochs.
    """
    from lightning_modules.networks import backbones
    from lightning_modules.networks.freezing import block_flops
    from search.settings.compose import compose_settings
    from search.trial.preparation import load, split

    settings = compose_settings(overrides)
    images = load(settings, Console(quiet=True))
    fold = split(settings, images.index).folds[0]
    records = images.index.records
    lists = {
        part: [(str(records[row].path), int(images.index.labels[row])) for row in rows]
        for part, rows in (("train", fold.train), ("val", fold.val))
    }
    file.write_text(json.dumps({**lists, "size": settings.data.pixels, "classes": len(images.index.classes)}))
    model = settings.model
    net = backbones.build(
        model.architecture, classes=len(images.index.classes), size=settings.data.pixels, weights="none"
    )
    work = 3.0 * sum(block_flops(net, settings.data.pixels)) * len(fold.train)
    # A member whose blocks are all frozen is trained anew, which costs next to nothing.
    again = (settings.search.refit_epochs or settings.trainer.epochs) / settings.trainer.epochs
    return settings.trainer.epochs, work, again * (len(fold.train) + len(fold.val)) / len(fold.train)


def plain(lists: Path, epochs: int, workers: int) -> float:
    """Seconds of one plain fine-tuning in a process with nothing set but what a user has set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MALLOC_"))}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.plain_finetuning",
        str(lists),
        str(epochs),
        str(workers),
    ]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def measure(name: str, extra: list[str], console: Console) -> dict[str, Any]:
    """One row."""
    settings, goal = TASKS[name]
    if name in PLANTED:
        write_planted(name, CACHE)
    overrides = [text.format(data=DATA, made=CACHE) for text in settings] + extra
    with tempfile.TemporaryDirectory() as folder:
        lists, root = Path(folder) / "lists.json", Path(folder) / "mlruns"
        epochs, work, again = write_lists([*overrides, f"tracking.root={folder}/images"], lists)
        times = [plain(lists, epochs, workers) for workers in (0, 2)]
        started = time.perf_counter()
        command = [sys.executable, "-m", "search", *overrides, f"tracking.root={root}", "search.study=price"]
        subprocess.run(command, check=True)  # noqa: S603
        seconds = time.perf_counter() - started
        times += [plain(lists, epochs, workers) for workers in (0, 2)]
        phases, trained, equivalents = _phases(root, again)
    rate = product_rate()
    unit = min((times[0] + times[2]) / 2, (times[1] + times[3]) / 2)
    console.print(f"plain fine-tunings: {', '.join(f'{t:.1f}' for t in times)} s; search: {seconds:.1f} s {phases}")
    workers = min(4, len(os.sched_getaffinity(0)))
    # What a worker waits for (the driver, the other workers' end), and what the driver does alone beside tensor work.
    idle = phases["trials"] - trained / workers + phases["tracking"] + phases["figures"]
    console.print(f"orchestration: {idle / seconds:.3f} of the search's wall time (goal <= 0.03)")
    return {
        "what": f"default search / one plain fine-tuning, {name}",
        "orchestration_share": round(idle / seconds, 4),
        "value": round(seconds / unit, 2),
        "unit": "ratio",
        "goal": goal,
        "better": "lower",
        "search_seconds": round(seconds, 1),
        "plain_seconds": round(unit, 1),
        "epoch_equivalents": round(equivalents, 1),
        "search_limit_seconds": round(equivalents * work / rate, 1),
        "plain_limit_seconds": round(epochs * work / rate, 1),
        "phases": phases,
        "settings": " ".join([*settings, *extra]).format(data="../shared/data", made=CACHE),
    }


def _phases(root: Path, again: float) -> tuple[dict[str, float], float, float]:
    """Wall seconds by phase, as the search logged them itself; those of all trials; the work in epochs of everything.

    Args:
        root: of the search.
        again: images that a refit is shown / those that a trial is.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    parent = client.search_runs(experiments, "metrics.seconds_trials > 0")[0]
    found = parent.data.metrics
    phases = {k.removeprefix("seconds_"): round(v, 1) for k, v in sorted(found.items()) if k.startswith("seconds_")}
    children = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=1000)
    trials = [run.data.metrics for run in children]
    cost = {int(run.data.tags["slot"]): run.data.metrics.get("epoch_equivalents", 0.0) for run in children}
    refits = sum(cost[slot] for slot in load_study("price", root=root).winner.members) * again
    return phases, sum(trial.get("seconds", 0.0) for trial in trials), sum(cost.values()) + refits


def main(arguments: list[str]) -> int:
    """Measure the tasks named, or all; exit status 1 if a goal is missed."""
    console = Console()
    extra = [a for a in arguments if "=" in a]
    names = [a for a in arguments if "=" not in a] or list(TASKS)
    if unknown := [name for name in names if name not in TASKS]:
        print(f"search_price: unknown task {unknown[0]!r}; accepted: {', '.join(TASKS)}", file=sys.stderr)
        return 2
    rows = read_rows("search_price")
    table = Table("what", "value", "goal", "search", "plain")
    missed = False
    for name in names:
        row = measure(name, extra, console)
        rows = [r for r in rows if (r["what"], r["settings"]) != (row["what"], row["settings"])] + [row]
        write_rows("search_price", rows)
        missed |= row["value"] > row["goal"]
        seconds = [f"{row[f'{who}_seconds']:.0f} s" for who in ("search", "plain")]
        table.add_row(row["what"], f"{row['value']:.2f}", f"<= {row['goal']:.0f}", *seconds)
    console.print(table)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
