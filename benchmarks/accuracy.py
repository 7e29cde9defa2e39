"""What a search reaches on real images: `python -m benchmarks.accuracy [NAME ...]`.

Each row is a whole search through the command line, its winner tested once. Writes
benchmarks/results/accuracy.json, keeping the rows of names that were not run; studies continue where they stopped.
Of magnetic tile there are two: `magnetic_tile_tiles` keeps the pictures of a tile together, `magnetic_tile_groups` the
published groups, which are exposures and share tiles.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

from benchmarks.localisation_data import grouped_by_tile
from benchmarks.real_images import DATA, refusal
from benchmarks.results_file import read_rows, write_rows

SEEDS = (0, 1, 2)
_SEEN = ("data.size=[96,96]", "data.fit=stretch")  # of the committed results, whatever the default is now
_NEU = (
    "data=manifest",
    *_SEEN,
    "executor.threads=1",
    "data.path={data}/neu/manifest.csv",
    "data.test=rest",
    "search.refit=false",
)
TASKS: dict[str, tuple[tuple[str, ...], str]] = {
    "neu_10": ((*_NEU, "data.max_train_per_class=10", "trainer.epochs=20", "search.trials=15"), "accuracy"),
    "neu_150": ((*_NEU, "data.max_train_per_class=150", "search.trials=6"), "accuracy"),
    "magnetic_tile_tiles": (
        (
            "data=manifest",
            "executor.threads=1",
            "data.path={made}/tiles.csv",
            "data.size=[96,96]",
            "data.fit=pad",
            "search.trials=10",
        ),
        "macro_f1",
    ),
    "magnetic_tile_groups": (
        (
            "data=manifest",
            "executor.threads=1",
            "data.path={data}/magnetic_tile/manifest.csv",
            "data.size=[96,96]",
            "data.fit=pad",
            "search.trials=10",
        ),
        "macro_f1",
    ),
}


def run(name: str, seed: int, root: Path) -> dict[str, object]:
    """One search; returns its winner as the study recorded it."""
    made = root / "benchmarks"
    if name == "magnetic_tile_tiles":
        grouped_by_tile(made / "tiles.csv")
    arguments = [a.format(data=DATA, made=made) for a in TASKS[name][0]]
    study = f"accuracy-{name}-{seed}"
    command = [
        sys.executable,
        "-m",
        "search",
        *arguments,
        f"seed={seed}",
        f"search.study={study}",
        f"tracking.root={root}",
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter and arguments
    from search.study.record import load_study

    winner = load_study(study, root).winner
    if winner is None:
        raise RuntimeError(f"{' '.join(command)} left no winner")
    return {
        "task": name,
        "seed": seed,
        "params": winner.params,
        "test": winner.test,
        "intervals": winner.intervals,
        "images": winner.images,
        "validation": winner.value,
        "seconds": round(time.perf_counter() - started, 1),
        "command": " ".join(TASKS[name][0]).format(data="../shared/data", made=made) + f" seed={seed}",
    }


def main(names: list[str]) -> int:
    """Run the tasks named, or all."""
    console = Console()
    if why := refusal(names, TASKS):
        print(f"accuracy: {why}", file=sys.stderr)
        return 2
    rows = read_rows("accuracy")
    for name in names or list(TASKS):
        for seed in SEEDS:
            row = run(name, seed, Path("mlruns"))
            rows = [r for r in rows if (r["task"], r["seed"]) != (name, seed)] + [row]
            write_rows("accuracy", rows)
    table = Table("task", "score", "mean of the seeds", "standard deviation", "by seed", "test images")
    for name, (_, score) in TASKS.items():
        values = [r["test"][score] for r in rows if r["task"] == name]
        if len(values) > 1:
            images = ", ".join(str(r["images"][1]) for r in rows if r["task"] == name)
            by_seed = ", ".join(f"{v:.4f}" for v in values)
            table.add_row(name, score, f"{mean(values):.4f}", f"{stdev(values):.4f}", by_seed, images)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
