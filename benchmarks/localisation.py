"""Where the blocks of a fitted model look: `python -m benchmarks.localisation [NAME ...]`.

For each task a model is trained by `python -m search`, and `python -m explain` measures, on test images alone, how much
of the map of the true class lies on the defects, by block and method, beside the gradient-free map, random weights
(three draws) and chance. Writes benchmarks/results/localisation.json, keeping the tasks that were not run; models and
measurements under mlruns/localisation that are complete are not made again.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.localisation_data import grouped_by_tile, test_set
from benchmarks.real_images import DATA, refusal
from search.study.opening import load_study
from search.study.record import Study

RESULTS = Path(__file__).parent / "results" / "localisation.json"
ROOT = Path("mlruns") / "localisation"
TILES = ROOT / "tiles.csv"
METHODS = ("gradcam", "layercam", "hirescam", "xgradcam", "gradcampp", "cam", "activation")
DRAWS = (0, 1, 2)


@dataclass(frozen=True)
class LocalisationTask:
    """A model and the images it is judged on.

    Attributes:
        settings: of the search.
        truth: boxes or masks.
        images: most test images that are measured, at random.
        about: one line for readers.
    """

    settings: tuple[str, ...]
    truth: str
    images: int
    about: str


_NEU = (
    "data=manifest",
    "data.path={data}/neu/manifest.csv",
    "data.test=rest",
    "data.max_train_per_class=40",
    "data.fit=stretch",
    "trainer.epochs=10",
)
_ONE = ("search.trials=1",)
_TILES = (
    "data=manifest",
    "data.fit=pad",
    "data.size=[192,192]",
    "data.test_fraction=0.4",
    "trainer.epochs=10",
    "search.refit=false",
    *_ONE,
)
TASKS = {
    "neu": LocalisationTask((*_NEU, "search.trials=6", "data.size=[96,96]"), "boxes", 300, "NEU, 96 px"),
    "neu_192": LocalisationTask((*_NEU, *_ONE, "data.size=[192,192]"), "boxes", 300, "NEU, 192 px"),
    "magnetic_tile": LocalisationTask(
        (*_TILES, "data.path={tiles}", "data.outside=allow"), "masks", 300, "magnetic tile, 192 px, new tiles"
    ),
    "magnetic_tile_seen": LocalisationTask(
        (*_TILES, "data.path={data}/magnetic_tile/manifest.csv"),
        "masks",
        300,
        "magnetic tile, 192 px, seen tiles",
    ),
}


def call(*words: str) -> None:
    """Run one of our commands on one thread."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", *words], check=True, env=one_thread)  # noqa: S603 - our own interpreter


def train(name: str) -> tuple[Study, list[str]]:
    """The task's study, which has a winner, and the arguments of its search."""
    study = f"localisation-{name}"
    if "{tiles}" in " ".join(TASKS[name].settings):
        grouped_by_tile(TILES)
    arguments = [text.format(data=DATA, tiles=TILES) for text in TASKS[name].settings]
    arguments += ["executor.threads=1", f"tracking.root={ROOT}", f"search.study={study}"]
    journal = ROOT / "studies" / f"{study}.journal"
    if not journal.exists() or load_study(study, ROOT).winner is None:
        call("search", *arguments)
    return load_study(study, ROOT), arguments


def measure(name: str, run: str) -> dict[str, Any]:
    """Localisation by block and method on the task's test images: of the model, of random weights, and chance."""
    folder = ROOT / name
    tables = []
    for seed in DRAWS:
        out = folder / f"draw{seed}"
        if not out.exists():
            truth = TASKS[name].truth
            call("explain", f"images={folder / 'images'}", f"model={run}", f"root={ROOT}", f"seed={seed}",
                 f"{truth}={folder / truth}.csv", "target=true", f"methods=[{','.join(METHODS)}]",
                 f"gap_head={folder / 'train.csv'}", f"figures={0 if seed else 12}", f"out={out}")  # fmt: skip
        with (out / "localisation.csv").open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    rows = []
    for draws in zip(*tables, strict=True):
        first = draws[0]
        row: dict[str, Any] = {
            "block": first["block"],
            "method": first["method"],
            "dead": round(float(first["dead"]), 4),
        }
        for column in ("energy", "pointing", "over_control", "over_chance"):
            row[column] = [round(float(first[column + end]), 4) for end in ("", "_low", "_high")]
        for column in ("random_energy", "random_pointing"):
            row[column] = [round(float(draw[column]), 4) for draw in draws]
        row["over_random"] = [
            [round(float(draw[f"over_random{end}"]), 4) for end in ("", "_low", "_high")] for draw in draws
        ]
        rows.append(row)
    manifest = json.loads((folder / f"draw{DRAWS[0]}" / "manifest.json").read_text(encoding="utf-8"))
    alive = next(row for row in rows if row["dead"] == 0)
    return {
        "measured": max(int(first["images"]) for first in tables[0]),
        "chance": round(alive["energy"][0] - alive["over_chance"][0], 4),
        "ceiling": ceiling(name, run),
        "cam_heads": manifest["cam"],
        "rows": rows,
    }


def ceiling(name: str, run: str) -> dict[str, float]:
    """Energy inside of the best map that each block could draw: the truth itself at the resolution of the block."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    from explain import MEASURES, capture
    from search.explain.annotations import read_boxes, read_masks
    from search.tracking.models import resolve_model

    task, folder = TASKS[name], ROOT / name
    model = resolve_model(run, ROOT)
    size, fit = model.card.size, model.card.fit
    notes = (read_boxes if task.truth == "boxes" else read_masks)(folder / f"{task.truth}.csv")
    blocks = [f"blocks.{label}" for label in model.net.block_names]
    shapes = [signals.activations.shape[2:] for signals in capture(model.net, torch.rand(1, 3, *size), blocks)]
    values: dict[str, list[float]] = {label: [] for label in model.net.block_names}
    for path, note in notes.items():
        truth = note.truth(path, size, fit)[None]
        if not truth.any():
            continue
        for label, shape in zip(values, shapes, strict=True):
            pooled = adaptive_avg_pool2d(truth.float(), tuple(shape))
            values[label].append(float(MEASURES["energy_pointing"](pooled, truth)))
    return {label: round(sum(found) / len(found), 4) for label, found in values.items()}


def show(result: dict[str, Any], console: Console) -> None:
    """Energy inside by block and method, and the control of the best method of each block."""
    table = Table(title=f"{result['about']}: share of the map on the defects, chance {result['chance']:.3f}")
    for column in ("block", *METHODS, "random weights", "ceiling"):
        table.add_column(column, justify="left" if column == "block" else "right")
    for block, best in result["ceiling"].items():
        by_method = {row["method"]: row for row in result["rows"] if row["block"] == block}
        random = [value for row in by_method.values() for value in row["random_energy"]]
        cells = [f"{by_method[m]['energy'][0]:.3f}" if m in by_method else "-" for m in METHODS]
        table.add_row(block, *cells, f"{min(random):.3f}..{max(random):.3f}", f"{best:.3f}")
    console.print(table)


def main(names: list[str]) -> int:
    """Run the tasks named, or all."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if why := refusal(names, TASKS):
        print(f"localisation: {why}", file=sys.stderr)
        return 2
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in names or list(TASKS):
        study, arguments = train(name)
        if study.winner is None or study.run_id is None:
            raise RuntimeError(f"the study {study.name} has no winner")
        if not (ROOT / name / "train.csv").exists():
            test_set(ROOT / name, arguments, TASKS[name].truth, TASKS[name].images)
        result = {
            "task": name,
            "about": TASKS[name].about,
            "search": " ".join(TASKS[name].settings).format(data="../shared/data", tiles=TILES),
            "params": study.winner.params,
            "test": study.winner.test,
            **measure(name, study.run_id),
        }
        results = [r for r in results if r["task"] != name] + [result]
        results.sort(key=lambda r: list(TASKS).index(r["task"]))
        RESULTS.parent.mkdir(exist_ok=True)
        # A list of numbers on one line: a diff then shows one line for one row.
        text = re.sub(r"\[[^\[\]{}]+\]", lambda found: " ".join(found[0].split()), json.dumps(results, indent=1))
        RESULTS.write_text(text + "\n", encoding="utf-8")
        show(result, console)
    from benchmarks.localisation_figure import draw

    console.print(f"figure: {draw(results).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
