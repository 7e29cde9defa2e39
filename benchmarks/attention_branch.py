"""The Attention Branch Network beside CAM fostering and the plain head: `python -m benchmarks.attention_branch`.

`[TASK ...] [splits=N]`. EfficientNet-Lite0 with ImageNet weights at 96 x 96 pixels, the first four of its eight blocks
frozen and cached, Adam at 1e-3, ten training images a class, 8 epochs, on random splits; only the head differs within a
split: plain, fostered (beta 0.1 at stage5), and with an attention branch behind stage5, whose map is 6 x 6. On test
images: balanced accuracy (30 a class); and of the maps at stage5 (8 a class), by Grad-CAM of the true class and of the
branch's own attention map, ce, ca, cd, relative difference, ADCC, and the share of the map on the defects (boxes or
masks). What was expected of whom was committed before any result (docs/attention_branch.md).

A line a map in benchmarks/tables/attention_branch/TASK.jsonl, which is gone on with; then means, and paired differences
to the plain head's Grad-CAM with 95 % t-intervals over the splits, parameters, and a training step's seconds against
the plain one's (medians of rounds in turn): benchmarks/results/attention_branch.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import fostering
from benchmarks.real_images import refusal
from benchmarks.results_file import read_rows, write_rows
from benchmarks.student_interval import interval
from lightning_modules.whole_file import whole_file

if TYPE_CHECKING:
    import torch

    from lightning_modules.networks.blocknet import BlockNet
    from search.explain.annotations import Annotation
    from search.trial.task import Task

TABLES = Path(__file__).parent / "tables" / "attention_branch"
BLOCK, DEPTH, SPLITS, BETA, ROUNDS, BATCH = "stage5", 4, 5, 0.1, 21, 16
SCORED, EXPLAINED = 30, 8  # test images a class
SETTINGS = ("data.size=[96,96]", "data.views=1", "trainer.epochs=8")
BRANCH = ("model.head=attention_branch", f"model.attention_block={BLOCK}")
PLAIN = (f"space.fostering=[0,{BETA}]", f"trainer.fostering.block={BLOCK}", "space.freeze_depth=[0,5]")
MAPS = {
    "plain": ("gradcam", "activation"),
    "fostering": ("gradcam",),
    "attention branch": ("gradcam", "attention", "attention above its least"),
}
"""Head -> whose maps are measured; activation is the control that uses neither gradients nor the class."""

COLUMNS = (
    "accuracy", "ce", "ca", "cd", "relative_difference", "dead_map_rate", "average_drop", "adcc", "energy_pointing",
)  # fmt: skip
REFERENCE = ("plain", "gradcam")


def explainer(net: BlockNet, kind: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """From images (N, 3, H, W) and their classes (N,) to the maps (N, h, w) of that kind at the block."""
    import torch

    from explain import capture
    from explain.attribution import METHODS
    from lightning_modules.networks.attention_branch import attended

    def explain(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if kind in METHODS:
            return METHODS[kind](capture(net, images, [f"blocks.{BLOCK}"], targets).blocks[0])
        block = attended(net)
        if block is None:
            raise ValueError(f"{kind} needs an attention branch")
        with torch.no_grad():
            maps = block.branch(net.prefix(images, net.deepest))[:, 0]
        return maps if kind == "attention" else maps - maps.amin((1, 2), keepdim=True)

    return explain


def arm_rows(task: Task, arm: str, split: int, known: dict[Path, Annotation]) -> list[dict[str, Any]]:
    """A network trained and its rows, one a kind of map.

    Args:
        task: with an attention branch where the arm has one; of the other two it is the same.
    """
    from search.trial.result import TrialParams
    from search.trial.training import train_final

    beta = {"plain": 0.0, "fostering": BETA}.get(arm)
    rows, epochs = task.splits.folds[0].train, task.settings.trainer.epochs
    net = train_final(task, TrialParams("adam", 1.0, DEPTH, beta), split, rows, epochs)
    common = {
        "split": split,
        "head": arm,
        "train": len(rows),
        "parameters": sum(p.numel() for p in net.parameters()),
        "accuracy": fostering.balanced_accuracy(task, net, SCORED),
    }
    found = [
        {**common, "map": kind, **fostering.examine_maps(task, net, known, explainer(net, kind), EXPLAINED)}
        for kind in MAPS[arm]
    ]
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in found]


def read_table(name: str) -> list[dict[str, Any]]:
    """Rows of a task so far; a half-written line is left out."""
    file = TABLES / f"{name}.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def measure(name: str, split: int) -> None:
    """Train and examine what is missing of a split of a task."""
    rows, known = read_table(name), fostering.truths(name)
    tasks: dict[tuple[str, ...], Task] = {}
    for arm, maps in MAPS.items():
        own = [row for row in rows if (row["split"], row["head"]) == (split, arm)]
        if {row["map"] for row in own} >= set(maps):
            continue
        settings = BRANCH if arm == "attention branch" else PLAIN
        if settings not in tasks:
            tasks[settings] = fostering.task_of(name, split, *SETTINGS, *settings)
        found = arm_rows(tasks[settings], arm, split, known)
        rows = [row for row in rows if row not in own] + found
        with whole_file(TABLES / f"{name}.jsonl") as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for row in found:
            said = ", ".join(f"{column} {row[column]:.3f}" for column in COLUMNS if column in row)
            print(f"{name} {split}: {arm}, {row['map']}: {said}", flush=True)


def summary(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means by head and map over the splits that have all, and paired differences to the reference."""
    kinds = [(head, kind) for head, maps in MAPS.items() for kind in maps]
    by = {(row["split"], row["head"], row["map"]): row for row in rows}
    whole = sorted(s for s in {row["split"] for row in rows} if all((s, *kind) in by for kind in kinds))
    found = []
    for head, kind in kinds if whole else ():
        about = fostering.TASKS[name].about
        row: dict[str, Any] = {"task": name, "about": about, "head": head, "map": kind, "splits": len(whole)}
        row["parameters"] = by[whole[0], head, kind]["parameters"]
        for column in COLUMNS:
            values = np.array([by[s, head, kind].get(column, np.nan) for s in whole], float)
            row[column] = round(float(np.nanmean(values)), 4) if np.isfinite(values).any() else None
            if (head, kind) != REFERENCE:
                change = values - np.array([by[s, *REFERENCE].get(column, np.nan) for s in whole], float)
                change = change[np.isfinite(change)]
                if len(change) > 1:
                    row[f"{column}_change"] = [round(float(v), 4) for v in (change.mean(), *interval(change))]
        row["chance"] = round(float(np.mean([by[s, head, kind]["chance"] for s in whole])), 4)
        found.append(row)
    return found


def step_ratios() -> list[dict[str, Any]]:
    """A training step with each head against the plain one, on what leaves the frozen blocks; one thread."""
    import torch

    from lightning_modules.networks.backbones import build
    from lightning_modules.training.classifier import Classifier
    from lightning_modules.training.fostering import Fostering

    torch.set_num_threads(1)
    steps: dict[str, Callable[[], None]] = {}
    for arm in MAPS:
        attention = BLOCK if arm == "attention branch" else None
        net = build("efficientnet_lite0", classes=6, size=(96, 96), weights="imagenet", attention=attention)
        term = Fostering(net, net.block_names.index(BLOCK), BETA) if arm == "fostering" else None
        model = Classifier(net, DEPTH, "adam", 1.0, fostering=term).train()
        optimizer = model.configure_optimizers()
        torch.manual_seed(0)
        with torch.no_grad():
            shown = net.prefix(torch.rand(BATCH, 3, 96, 96).contiguous(memory_format=torch.channels_last), DEPTH)

        def step(model: Any = model, optimizer: Any = optimizer, shown: torch.Tensor = shown) -> None:
            optimizer.zero_grad()
            model.training_step((shown, torch.arange(BATCH) % 6, 1)).backward()
            optimizer.step()

        step()
        steps[arm] = step
    seconds: dict[str, list[float]] = {arm: [] for arm in steps}
    for turn in range(ROUNDS):
        order = list(steps) if turn % 2 == 0 else list(steps)[::-1]
        for arm in order:
            started = time.process_time()
            steps[arm]()
            seconds[arm].append(time.process_time() - started)
    found = []
    for arm, own in seconds.items():
        ratios = [one / other for one, other in zip(own, seconds["plain"], strict=True)]
        row = {"what": f"training step / plain step, {arm}", "value": round(statistics.median(ratios), 3)}
        found.append(
            {
                **row,
                "unit": "ratio",
                "goal": None,
                "better": "lower",
                "range": [round(min(ratios), 3), round(max(ratios), 3)],
            }
        )
    return found


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The tables of a task: means, and differences to the plain head's Grad-CAM."""
    first = rows[0]
    table = Table(title=f"{first['about']}: means over {first['splits']} splits; chance {first['chance']:.3f}")
    change = Table(title="Paired differences to the plain head's Grad-CAM, 95 % t-intervals")
    for column in ("head", "map", *COLUMNS):
        for one in (table, change):
            one.add_column(column.replace("_", " "), justify="left" if column in ("head", "map") else "right")
    for row in rows:
        cells = ["-" if row[c] is None else f"{row[c]:.3f}" for c in COLUMNS]
        table.add_row(row["head"], row["map"], *cells)
        if (row["head"], row["map"]) != REFERENCE:
            found = [row.get(f"{c}_change") for c in COLUMNS]
            words = ["-" if c is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*c) for c in found]
            change.add_row(row["head"], row["map"], *words)
    console.print(table)
    console.print(change)


def main(arguments: list[str]) -> int:
    """Measure the tasks named, or all, and the seconds of a step."""
    names, splits = fostering.names_and_splits(arguments, SPLITS)
    if why := refusal(names, fostering.TASKS):
        print(f"attention_branch: {why}", file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(1)
    TABLES.mkdir(parents=True, exist_ok=True)
    for split in range(splits):
        for name in names or list(fostering.TASKS):
            measure(name, split)
    console = Console(width=None if sys.stdout.isatty() else 260)
    rows = read_rows("attention_branch")
    for name in names or list(fostering.TASKS):
        mine = summary(name, read_table(name))
        rows = [*mine, *(row for row in rows if row.get("task") != name)]
        write_rows("attention_branch", rows)
        if mine:
            show(mine, console)
    timed = step_ratios()
    write_rows("attention_branch", [*(row for row in rows if "task" in row), *timed])
    for row in timed:
        console.print(f"{row['what']}: {row['value']} ({row['range'][0]} to {row['range'][1]})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
