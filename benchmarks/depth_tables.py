"""Exhaustive tables of depth x optimizer x learning rate: `python -m benchmarks.depth_tables [TASK ...] workers=N`.

Every configuration is trained to its full length on every random split, and validation and test scores of every epoch
are kept, so that any search can be replayed on the tables without training (`benchmarks.replay`). One file a split in
benchmarks/tables/TASK/SPLIT.jsonl: what it was made of, then one line a configuration. Runs continue where they
stopped; a file made with other settings is refused.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.localisation_data import grouped_by_tile
from benchmarks.planted_tasks import PLANTED, write_planted
from benchmarks.real_images import DATA, refusal

if TYPE_CHECKING:
    from lightning_modules.images.splits import Splits
    from lightning_modules.images.store import ImageSet
    from search.settings.schema import Settings

TABLES = Path(__file__).parent / "tables"
CACHE = Path("mlruns") / "tables"
OPTIMIZERS = ("momentum", "nag", "adam")
FACTORS = (0.3, 1.0, 3.0)
WATCHED = 300  # test images that are scored after every epoch


@dataclass(frozen=True)
class TableTask:
    """One table.

    Attributes:
        settings: of the search it tabulates.
        splits: how many random splits, at most.
        about: one line for readers.
        optimizers: of the table.
        factors: on their reference learning rates.
    """

    settings: tuple[str, ...]
    splits: int
    about: str
    optimizers: tuple[str, ...] = OPTIMIZERS
    factors: tuple[float, ...] = FACTORS


# Of the committed tables, whatever the default is now; a task's own fit stands behind these and counts.
_SEEN = ("data.size=[96,96]", "data.fit=stretch")
_NEU = ("data=manifest", "data.path={data}/neu/manifest.csv", "data.test=rest")
TASKS = {
    "neu_10": TableTask((*_NEU, "data.max_train_per_class=10"), 10, "NEU, 10 training images a class"),
    "neu_40": TableTask((*_NEU, "data.max_train_per_class=40"), 5, "NEU, 40 training images a class"),
    "simulated": TableTask(("data=simulated",), 3, "simulated ultrasonic images, test on the newest month"),
    "magnetic_tile": TableTask(
        ("data=manifest", "data.path={made}/tiles.csv", "data.fit=pad"), 3, "magnetic tiles, tiles kept together"
    ),
    **{
        name: TableTask(
            (
                "data=manifest",
                f"data.path={{made}}/{name}/manifest.csv",
                "data.test=rest",
                "data.max_train_per_class=30",
                *(("data.shift=0", "data.flip=false") if name == "planted_0" else ()),
            ),
            3,
            f"planted: the best freeze depth is {name.removeprefix('planted_')}",
            # Everything is slow where the best depth is shallow, and only the depth is asked for.
            *((("momentum", "adam"), (1.0, 3.0)) if name == "planted_0" else ()),
        )
        for name in PLANTED
    },
}


def configurations(task: TableTask, depth: int) -> Iterator[tuple[int, str, float]]:
    """(freeze depth, optimizer, factor), deep and cheap ones first."""
    yield from product(range(depth, -1, -1), task.optimizers, task.factors)


def table_data(name: str, split: int, *more: str) -> tuple[Settings, ImageSet, Splits]:
    """Settings, images and splits of one split of a task.

    Args:
        name: of the task.
        split: its number, which is the seed.
        more: settings beside the task's own.
    """
    from rich.console import Console

    from search.settings.compose import compose_settings
    from search.trial.preparation import load
    from search.trial.preparation import split as split_images

    if name in PLANTED:
        write_planted(name, CACHE)
    elif name == "magnetic_tile":
        grouped_by_tile(CACHE / "tiles.csv")
    overrides = [*_SEEN, *(text.format(data=DATA, made=CACHE) for text in TASKS[name].settings)]
    if name == "magnetic_tile":
        overrides.append("data.outside=allow")  # a manifest of pictures that lie elsewhere
    as_they_were = ("trainer.schedule=constant",)  # when the committed tables were made
    settings = compose_settings([*overrides, *as_they_were, f"seed={split}", f"tracking.root={CACHE}", *more])
    images = load(settings, Console(quiet=True))
    return settings, images, split_images(settings, images.index)


def make_table(name: str, split: int) -> None:
    """Fill the table of one split; what it holds already is kept."""
    import numpy as np
    import optuna
    import torch

    from lightning_modules.training.allocator import keep_freed_memory
    from search.trial.keys import state_digest
    from search.trial.result import TrialParams
    from search.trial.task import build_task
    from search.trial.training import run_trial

    keep_freed_memory()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings, images, splits = table_data(name, split, "trainer.cache_gigabytes=8")
    watched = np.sort(np.random.default_rng([split, 7]).permutation(splits.test)[:WATCHED])
    task = build_task(settings, images, splits, cache=CACHE / "cache", watched=watched)
    head = {
        "task": name,
        "about": TASKS[name].about,
        "settings": list(TASKS[name].settings),
        "seed": split,
        "train": len(splits.folds[0].train),
        "validation": len(splits.folds[0].val),
        "test": len(watched),
        "classes": len(task.classes),
        "flops": list(task.flops),
        "epochs": settings.trainer.epochs,
        "data_digest": task.index.digest,
        "weights_digest": state_digest(task.net),
    }
    file = TABLES / name / f"{split}.jsonl"
    done = held(file, head)
    for k, optimizer, factor in configurations(TASKS[name], task.net.num_blocks):
        if (k, optimizer, factor) in done:
            continue
        started = time.perf_counter()
        result = run_trial(task, TrialParams(optimizer, factor, k), seed=split)
        row: dict[str, Any] = {"k": k, "optimizer": optimizer, "factor": factor}
        for column, metric in (
            ("val", "val_macro_f1"),
            ("val_loss", "val_loss"),
            ("test", "watched_macro_f1"),
            ("test_accuracy", "watched_accuracy"),
            ("train", "train_accuracy"),
        ):
            row[column] = [round(r.metrics.get(metric, 0.0), 4) for r in result.curve]
        row["seconds"] = [round(r.seconds, 2) for r in result.curve]
        if result.stopped:
            row["stopped"] = result.stopped
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        best = max(row["val"])
        print(
            f"{name} {split}: k={k} {optimizer} x{factor}: {best:.3f}, {time.perf_counter() - started:.1f} s",
            flush=True,
        )


def held(file: Path, head: dict[str, Any]) -> set[tuple[int, str, float]]:
    """Configurations that the file holds; a half-written last line is cut off."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(head) + "\n")
        return set()
    lines = file.read_text().split("\n")
    if json.loads(lines[0]) != json.loads(json.dumps(head)):
        whose = f" of {head['task']}" if "task" in head else ""
        raise SystemExit(f"{file.name}{whose} was made with other settings; remove it to make it again")
    if lines[-1]:
        file.write_text("\n".join(lines[:-1]) + "\n")
    rows = [json.loads(line) for line in lines[1:-1]]
    return {(row["k"], row["optimizer"], row["factor"]) for row in rows}


def main(arguments: list[str]) -> int:
    """Make the tables named, or all, a split of each in turn."""
    workers = 2
    names = []
    for argument in arguments:
        if argument.startswith("workers="):
            workers = int(argument.removeprefix("workers="))
        else:
            names.append(argument)
    if why := refusal(names, TASKS):
        print(f"depth_tables: {why}", file=sys.stderr)
        return 2
    chosen = names or list(TASKS)
    most = max(TASKS[name].splits for name in chosen)
    jobs = [(name, split) for split in range(most) for name in chosen if split < TASKS[name].splits]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(make_table, name, split) for name, split in jobs]:
            future.result()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
