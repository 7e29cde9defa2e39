"""What a search reaches on real images: `python -m benchmarks.accuracy [TASK ...] [seeds=0,1,2]`.

Each row is a whole search through the command line with the default settings (but for `executor.threads=1`), its
winner tested once. Writes benchmarks/results/accuracy.json, keeping the rows of tasks that were not run; studies
continue where they stopped, and a row that is there is not searched again.
Of magnetic tile there are two: `magnetic_tile_tiles` keeps the pictures of a tile together, `magnetic_tile_groups` the
published groups, which are exposures and share tiles.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.localisation_data import grouped_by_tile
from benchmarks.real_images import DATA, refusal
from benchmarks.results_file import read_rows, write_rows
from benchmarks.student_interval import interval
from benchmarks.whole_search import whole_search

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class AccuracyTask:
    """One search.

    Attributes:
        about: for readers.
        settings: beside the defaults.
        score: that is looked at.
        given: images a class of NEU for training and validation together, and for the test (0: all others), where a
            manifest with that split is made; else None.
    """

    about: str
    settings: tuple[str, ...]
    score: str = "accuracy"
    given: tuple[int, int] | None = None


_TILE = ("data=manifest", "data.path={made}/tiles.csv", "data.outside=allow")
TASKS = {
    "neu_10": AccuracyTask(
        "NEU, 10 images a class for training and validation together",
        ("data=manifest", "data.path={made}", "data.outside=allow", "data.folds=5", "trainer.epochs=20"),
        given=(10, 0),
    ),
    "neu_10_10": AccuracyTask(
        "NEU, 10 images a class to train with and 10 to validate",
        ("data=manifest", "data.path={data}/neu/manifest.csv", "experiment=few_images"),
    ),
    "neu_150": AccuracyTask(
        "NEU, 150 images a class, tested on 150 a class",
        ("data=manifest", "data.path={made}", "data.outside=allow"),
        given=(150, 150),
    ),
    "magnetic_tile_tiles": AccuracyTask("magnetic tiles that were never seen", _TILE, "macro_f1"),
    "magnetic_tile_groups": AccuracyTask(
        "magnetic tiles under a light never seen",
        ("data=manifest", "data.path={data}/magnetic_tile/manifest.csv"),
        "macro_f1",
    ),
    "simulated": AccuracyTask("simulated ultrasonic images, newest month", ("data=simulated",)),
}


def neu_split(table: Path, trained: int, tested: int, seed: int) -> None:
    """Write a manifest of NEU with a random split: so many images a class to train and validate with, so many to test.

    Args:
        tested: images a class; 0 takes all that are left.
    """
    places, seen = defaultdict(list), set()
    folder = (DATA / "neu").resolve()
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            with Image.open(folder / row["path"]) as image:
                pixels = image.tobytes()
            if pixels not in seen:  # a given split may not part the copies of a picture
                seen.add(pixels)
                places[row["label"]].append(folder / row["path"])
    draws = np.random.default_rng([seed, 11])
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("path", "label", "split"))
        for label, paths in sorted(places.items()):
            order = draws.permutation(len(paths))
            for place in order[:trained]:
                lines.writerow((paths[place], label, "train"))
            for place in order[trained : trained + tested if tested else None]:
                lines.writerow((paths[place], label, "test"))


def run(name: str, seed: int, root: Path) -> dict[str, object]:
    """One search; returns its winner as the study recorded it."""
    made = root / "benchmarks"
    task = TASKS[name]
    if name == "magnetic_tile_tiles":
        grouped_by_tile(made / "tiles.csv")
    if task.given is not None:
        made = made / f"{name}-{seed}.csv"
        neu_split(made, *task.given, seed)
    arguments = [a.format(data=DATA, made=made) for a in (*task.settings, "executor.threads=1")]
    winner, seconds = whole_search(f"accuracy-{name}-{seed}", [*arguments, f"seed={seed}"], root)
    return {
        "task": name,
        "seed": seed,
        "params": winner.params,
        "test": winner.test,
        "intervals": winner.intervals,
        "images": winner.images,
        "validation": winner.value,
        "seconds": seconds,
        "command": " ".join(task.settings).format(data="../shared/data", made=made) + f" seed={seed}",
    }


def main(arguments: list[str]) -> int:
    """Run the tasks named, or all."""
    console = Console()
    seeds, names = SEEDS, []
    for argument in arguments:
        if argument.startswith("seeds="):
            seeds = tuple(int(text) for text in argument.removeprefix("seeds=").split(","))
        else:
            names.append(argument)
    if why := refusal(names, TASKS):
        print(f"accuracy: {why}", file=sys.stderr)
        return 2
    rows = read_rows("accuracy")
    for seed in seeds:
        for name in names or list(TASKS):
            if not any((r["task"], r["seed"]) == (name, seed) for r in rows):
                rows.append(run(name, seed, Path("mlruns")))
                write_rows("accuracy", rows)
    table = Table("task", "score", "mean", "95 % interval", "by seed", "test images", "seconds")
    for name, task in TASKS.items():
        found = [r for r in rows if r["task"] == name]
        values = [r["test"][task.score] for r in found]
        if len(values) > 1:
            low, high = interval(values)
            table.add_row(
                name, task.score, f"{mean(values):.4f}", f"{low:.4f} to {high:.4f}",
                ", ".join(f"{v:.4f}" for v in values), ", ".join(str(r["images"][1]) for r in found),
                f"{mean(r['seconds'] for r in found):.0f}",
            )  # fmt: skip
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
