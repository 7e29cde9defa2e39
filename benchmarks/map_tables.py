"""Tables with what a trial's maps say: `python -m benchmarks.map_tables [TASK ...] [splits=N] [network=NAME]`.

What docs/results/maps_registered.md asks for: of each freeze depth, optimizer and learning rate, under a falling rate,
the validation score and log loss after every epoch, the statistics of its maps at every rung with their seconds (both
as the product computes them under `search.pruner=maps`), and the scores of the last epoch's network on the test images.
One file a split, benchmarks/tables/maps/TASK-NETWORK-SPLIT.jsonl: what it was made of, then one line a configuration.
Runs continue where they stopped; a file made with other settings is refused. `benchmarks.maps` replays searches on
them. `shallowest=K` leaves the freeze depths below K for a later run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.depth_tables import CACHE, TABLES, TASKS, WATCHED, held, table_data
from benchmarks.real_images import refusal
from benchmarks.shortcut_task import SHORTCUT, shortcut_data

if TYPE_CHECKING:
    from lightning_modules.networks.blocknet import BlockNet
    from search.trial.task import Task

MAPS = TABLES / "maps"
NETWORKS = ("efficientnet_lite0", "resnet50")
OPTIMIZERS = ("adam", "momentum")
FACTORS = (0.3, 1.0, 3.0)
SPLITS = {"neu_10": 10, "neu_40": 10, "magnetic_tile": 10, "simulated": 3, SHORTCUT: 10}
_BATCH = 64


def configurations(depth: int) -> list[tuple[int, str, float]]:
    """(freeze depth, optimizer, factor), deep and cheap ones first."""
    return list(product(range(depth, -1, -1), OPTIMIZERS, FACTORS))


def fill(name: str, split: int, network: str = NETWORKS[0], shallowest: int = 0) -> None:
    """Train what the file of one split does not hold yet."""
    from lightning_modules.training.allocator import keep_freed_memory
    from search.trial.keys import state_digest
    from search.trial.result import TrialParams
    from search.trial.task import build_task
    from search.trial.training import run_trial, trial_network

    keep_freed_memory()
    torch.set_num_threads(1)
    more = ("trainer.cache_gigabytes=6", "trainer.schedule=cosine", "search.pruner=maps", f"model.name={network}")
    data = shortcut_data(split, *more) if name == SHORTCUT else table_data(name, split, *more)
    settings, images, splits = data
    task = build_task(settings, images, splits, cache=CACHE / "cache")
    tested = np.sort(np.random.default_rng([split, 7]).permutation(splits.test)[:WATCHED])
    head = {
        "task": name,
        "network": network,
        "seed": split,
        "train": len(splits.folds[0].train),
        "validation": len(splits.folds[0].val),
        "test": len(tested),
        "flops": list(task.flops),
        "epochs": settings.trainer.epochs,
        "batch_size": settings.trainer.batch_size,
        "data_digest": task.index.digest,
        "weights_digest": state_digest(task.net),
    }
    file = MAPS / f"{name}-{network}-{split}.jsonl"
    done = held(file, head)
    for depth, optimizer, factor in configurations(task.net.num_blocks):
        if (depth, optimizer, factor) in done or depth < shallowest:
            continue
        params, started = TrialParams(optimizer, factor, depth), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "slot-0.pt"
            result = run_trial(task, params, split, checkpoint=checkpoint)
            row: dict[str, Any] = {"k": depth, "optimizer": optimizer, "factor": factor}
            row["val"] = [round(r.value, 4) for r in result.curve]
            row["val_loss"] = [round(r.loss, 5) for r in result.curve]
            row["seconds"] = [round(r.seconds, 3) for r in result.curve]
            row["maps"] = {r.step + 1: r.maps for r in result.curve if r.maps}
            row["map_seconds"] = {r.step + 1: round(r.map_seconds, 4) for r in result.curve if r.maps}
            if result.stopped:
                row["stopped"] = result.stopped
            else:
                row |= tested_scores(
                    task, trial_network(task, params, split, len(result.curve), checkpoint=checkpoint), tested
                )
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        took = time.perf_counter() - started
        print(
            f"{name} {network} {split}: k={depth} {optimizer} x{factor}: {result.value:.3f}, {took:.0f} s", flush=True
        )


@torch.no_grad()
def tested_scores(task: Task, net: BlockNet, rows: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, float]:
    """Macro F1 and accuracy on these images, none of which a trial has seen."""
    from lightning_modules.training.scores import scores

    parts = [
        net(task.inputs(part, np.zeros(len(part), np.int64))) for part in np.array_split(rows, -(-len(rows) // _BATCH))
    ]
    found = scores(torch.cat(parts), torch.from_numpy(task.index.labels[rows]))
    return {"test": round(found["macro_f1"], 4), "test_accuracy": round(found["accuracy"], 4)}


def main(arguments: list[str]) -> int:
    """Fill the tables of these tasks, or of all, a split of each in turn."""
    names = [argument for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    networks = NETWORKS if "network" not in options else (options.pop("network"),)
    most, shallowest = (int(options.pop(name, default)) for name, default in (("splits", "10"), ("shallowest", "0")))
    unknown = [*options, *(name for name in networks if name not in NETWORKS)]
    if (why := refusal([n for n in names if n != SHORTCUT], TASKS)) or unknown:
        print(
            f"map_tables: {why or f'unknown {unknown[0]!r}; accepted: splits=N, shallowest=K, network={NETWORKS}'}",
            file=sys.stderr,
        )
        return 2
    for split in range(most):
        for network in networks:
            for name in names or SPLITS:
                if split < SPLITS.get(name, 3):
                    fill(name, split, network, shallowest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
