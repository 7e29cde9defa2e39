"""Does CAM fostering make better maps, and when does it hurt? `python -m benchmarks.fostering [TASK ...] [splits=N]`.

EfficientNet-Lite0 with ImageNet weights, the first four of its eight blocks frozen, Adam at 1e-3, trained on ten images
a class for a fixed number of epochs, on random splits, with each beta; nothing else differs between the betas of a
split. On test images, by the Grad-CAM map of the true class at the last block: ce, ca, cd, relative difference, dead
maps, ADCC, and how much of the map lies on the defects (boxes or masks); and balanced accuracy. A line a model in
benchmarks/tables/fostering/TASK.jsonl, which is gone on with, then means, paired differences to beta 0 with 95 %
t-intervals over the splits, and a figure: benchmarks/results/fostering.json, docs/images/fostering.png.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.fostering_figure import draw
from benchmarks.localisation_data import grouped_by_tile
from benchmarks.real_images import DATA, refusal
from benchmarks.results_file import read_rows, write_rows

if TYPE_CHECKING:
    import torch

    from search.explain.annotations import Annotation
    from search.trial.task import Task

TABLES = Path(__file__).parent / "tables" / "fostering"
CACHE = Path("mlruns") / "fostering"
BETAS = (0.0, 0.01, 0.1, 1.0, 10.0, 100.0)
DEPTH, SPLITS, BLOCK = 4, 5, "blocks.top"
SCORED, EXPLAINED, BATCH = 50, 25, 25  # test images a class
MAP_COLUMNS = ("ce", "ca", "cd", "relative_difference", "dead_map_rate", "average_drop", "coherency", "complexity")
COLUMNS = ("accuracy", *MAP_COLUMNS, "adcc", "energy_pointing", "epoch_s")
_SETTINGS = (
    "data=manifest",
    "data.test=rest",
    "data.max_train_per_class=10",
    "data.min_per_class=21",
    "data.size=[160,160]",
    "data.fit=stretch",
    "trainer.epochs=20",
    "trainer.batch_size=16",
    "trainer.accelerator=cpu",
)
_SEARCHED = (f"space.fostering={[*BETAS]}",)


@dataclass(frozen=True)
class FosteringTask:
    """A data set with the truth beside it.

    Attributes:
        settings: of the search whose trials these would be, beside those of all tasks.
        truth: boxes.csv or manifest.csv (masks), in the folder of the data set.
        about: one line for readers.
    """

    settings: tuple[str, ...]
    truth: str
    about: str


TASKS = {
    "neu": FosteringTask(("data.path={data}/neu/manifest.csv",), "neu/boxes.csv", "NEU, boxes"),
    "magnetic_tile": FosteringTask(
        ("data.path={made}/tiles.csv", "data.fit=pad", "data.outside=allow"),
        "magnetic_tile/manifest.csv",
        "magnetic tile, masks",
    ),
}


def truths(name: str) -> dict[Path, Annotation]:
    """Where the defects are, by resolved path of the image."""
    from search.explain.annotations import read_boxes, read_masks

    table = DATA / TASKS[name].truth
    return (read_boxes if table.name == "boxes.csv" else read_masks)(table)


def task_of(name: str, split: int, *more: str) -> Task:
    """One random split of a task, with other settings where `more` names them."""
    from search.settings.compose import compose_settings
    from search.trial.preparation import load
    from search.trial.preparation import split as split_images
    from search.trial.task import build_task

    if name == "magnetic_tile":
        grouped_by_tile(CACHE / "tiles.csv")
    overrides = [text.format(data=DATA, made=CACHE) for text in (*_SETTINGS, *TASKS[name].settings)]
    settings = compose_settings([*overrides, f"seed={split}", f"tracking.root={CACHE}", *(more or _SEARCHED)])
    images = load(settings, Console(quiet=True))
    return build_task(settings, images, split_images(settings, images.index), cache=CACHE / "cache")


def test_rows(task: Task, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """At most so many test images of each class, at random, the same for every beta."""
    rows = np.random.default_rng([task.settings.seed, 11]).permutation(task.splits.test)
    labels = task.index.labels[rows]
    return np.sort(np.concatenate([rows[labels == k][:most] for k in range(len(task.classes))]))


def examine(task: Task, net: torch.nn.Module, known: dict[Path, Annotation]) -> dict[str, float]:
    """Balanced accuracy, and the measures of the true classes' maps, means over the images where they are defined."""
    from explain import capture
    from explain.attribution import gradcam

    def explain(batch: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return gradcam(capture(net, batch, [BLOCK], targets).blocks[0])

    return {"accuracy": balanced_accuracy(task, net)} | examine_maps(task, net, known, explain)


def balanced_accuracy(task: Task, net: torch.nn.Module, most: int = SCORED) -> float:
    """Mean over the classes of the share of at most so many of their test images that is right."""
    import torch

    rows = test_rows(task, most)
    plain = np.zeros_like(rows)
    labels = torch.tensor(task.index.labels)
    right = []
    with torch.no_grad():
        for part in np.array_split(np.arange(len(rows)), -(-len(rows) // 50)):
            right.append(net(task.inputs(rows[part], plain[part])).argmax(1) == labels[rows[part]])
    hit, of = torch.cat(right).double(), labels[rows]
    return float(torch.stack([hit[of == k].mean() for k in range(len(task.classes))]).mean())


def examine_maps(
    task: Task,
    net: torch.nn.Module,
    known: dict[Path, Annotation],
    explain: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    most: int = EXPLAINED,
) -> dict[str, float]:
    """Measures of maps of test images, means over those where they are defined.

    Args:
        explain: from images (N, 3, H, W) and their true classes (N,) to maps (N, h, w).
        most: test images a class.
    """
    import torch

    from explain import MEASURES
    from explain.measures import adcc_from

    settings, labels = task.settings.data, torch.tensor(task.index.labels)

    def predict(images: torch.Tensor) -> torch.Tensor:
        return net(images).softmax(1)

    values: dict[str, list[torch.Tensor]] = {}
    chosen = test_rows(task, most)
    for part in np.array_split(chosen, -(-len(chosen) // BATCH)):
        images, targets = task.inputs(part, np.zeros_like(part)), labels[part]

        def again(batch: torch.Tensor, targets: torch.Tensor = targets) -> torch.Tensor:
            return explain(batch, targets)

        maps = again(images)
        for measure in ("ce", "ca", "cd", "relative_difference", "dead_map_rate", "complexity"):
            values.setdefault(measure, []).append(MEASURES[measure](maps))
        values.setdefault("average_drop", []).append(MEASURES["average_drop"](maps, images, targets, predict))
        values.setdefault("coherency", []).append(MEASURES["coherency"](maps, images, again))
        paths = [task.index.records[row].path.resolve() for row in part]
        for path, one in zip(paths, maps, strict=True):
            if path not in known or known[path].empty:
                continue
            truth = known[path].truth(path, settings.size, settings.fit)[None]  # frames differ in shape
            if truth.any():
                values.setdefault("energy_pointing", []).append(MEASURES["energy_pointing"](one[None], truth))
                values.setdefault("chance", []).append(truth.double().mean((1, 2)))
    each = {name: torch.cat(parts) for name, parts in values.items()}
    found = {name: float(one.nanmean()) for name, one in each.items()}
    return found | {"adcc": float(adcc_from(each["coherency"], each["complexity"], each["average_drop"]).nanmean())}


def measure(name: str, splits: int) -> list[dict[str, Any]]:
    """Train and examine what is missing of a task; returns all rows."""
    import torch

    from search.trial.result import TrialParams
    from search.trial.training import train_final

    torch.set_num_threads(1)
    file = TABLES / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    rows = [json.loads(line) for line in text.split("\n")[:-1]]
    if text and not text.endswith("\n"):  # the last line is half-written
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    known = truths(name)
    for split in range(splits):
        done = {row["beta"] for row in rows if row["split"] == split}
        if done >= set(BETAS):
            continue
        task = task_of(name, split)
        train = task.splits.folds[0].train
        task.warm_head(train, DEPTH)  # before any clock runs, and the activations with it
        for beta in BETAS:
            if beta in done:
                continue
            started = time.process_time()
            net = train_final(task, TrialParams("adam", 1.0, DEPTH, beta), split, train, task.settings.trainer.epochs)
            seconds = (time.process_time() - started) / task.settings.trainer.epochs
            row = {"split": split, "beta": beta, "train": len(train), "epoch_s": seconds} | examine(task, net, known)
            rows.append({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(rows[-1]) + "\n")
            print(f"{name} {split}: beta {beta:g}: " + ", ".join(f"{c} {row[c]:.3f}" for c in COLUMNS), flush=True)
    return rows


def summary(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means by beta over the splits that have every beta, and paired differences to beta 0 with t-intervals."""
    from scipy.stats import t

    whole = [s for s in {row["split"] for row in rows} if {r["beta"] for r in rows if r["split"] == s} >= set(BETAS)]
    by = {(row["split"], row["beta"]): row for row in rows}
    found = []
    for beta in BETAS if whole else ():
        row: dict[str, Any] = {"task": name, "about": TASKS[name].about, "beta": beta, "splits": len(whole)}
        for column in COLUMNS:
            values = np.array([by[s, beta].get(column, np.nan) for s in whole], float)
            change = values - np.array([by[s, 0.0].get(column, np.nan) for s in whole], float)
            change = change[np.isfinite(change)]
            row[column] = round(float(np.nanmean(values)), 4) if np.isfinite(values).any() else None
            if beta and len(change) > 1:
                half = t.ppf(0.975, len(change) - 1) * change.std(ddof=1) / np.sqrt(len(change))
                row[f"{column}_change"] = [
                    round(float(v), 4) for v in (change.mean(), *(change.mean() + half * s for s in (-1, 1)))
                ]
        row["chance"] = round(float(np.mean([by[s, beta]["chance"] for s in whole])), 4)
        found.append(row)
    return found


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The table of a task."""
    table = Table(title=f"{rows[0]['about']}: means over {rows[0]['splits']} splits; chance {rows[0]['chance']:.3f}")
    for column in ("beta", *COLUMNS):
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        cells = ["-" if row[c] is None else f"{row[c]:.3f}" for c in COLUMNS]
        table.add_row(f"{row['beta']:g}", *cells)
    console.print(table)


def names_and_splits(arguments: list[str], splits: int) -> tuple[list[str], int]:
    """Names of tasks, and the number of `splits=`; without it the one given."""
    names = []
    for argument in arguments:
        if argument.startswith("splits=") and argument.removeprefix("splits=").isdecimal():
            splits = int(argument.removeprefix("splits="))
        else:
            names.append(argument)
    return names, splits


def main(arguments: list[str]) -> int:
    """Measure the tasks named, or all; then summary and figure of every task that has rows."""
    names, splits = names_and_splits(arguments, SPLITS)
    if why := refusal(names, TASKS):
        print(f"fostering: {why}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 170)
    rows = read_rows("fostering")
    for name in names or list(TASKS):
        rows = [row for row in rows if row["task"] != name] + summary(name, measure(name, splits))
        rows.sort(key=lambda row: (list(TASKS).index(row["task"]), row["beta"]))
        write_rows("fostering", rows)
        if mine := [row for row in rows if row["task"] == name]:
            show(mine, console)
    if rows:
        console.print(f"figure: {draw(rows).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
