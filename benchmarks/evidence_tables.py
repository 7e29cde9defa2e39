"""What every scorer says on every split of the depth tables: `python -m benchmarks.evidence_tables [TASK ...]`.

The evidence is collected by the very code of a search, with a second probe fine-tuning for E4; and twice more as a
null: with the labels of the training images shuffled (heads and fine-tunings learn nonsense), and with random weights.
benchmarks/tables/TASK/evidence.jsonl holds what it was made of, then one line a split and null, without the priors,
which follow from the scores (`benchmarks.calibrate_prior`). Runs continue where they stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.depth_tables import CACHE, TABLES, TASKS, table_data
from benchmarks.real_images import refusal

if TYPE_CHECKING:
    from lightning_modules.images.index import ImageIndex
    from search.evidence.record import Evidence
    from search.trial.task import Task

NULLS = ("none", "labels", "weights")


def evidence_task(name: str, split: int, null: str) -> Task:
    """The task that the table of this split was made of, or its null; caches are its own.

    Args:
        name: of the table.
        split: its number.
        null: "none"; "labels": training labels shuffled; "weights": random weights, batch-norm re-estimated.
    """
    from lightning_modules.images.store import ImageSet
    from lightning_modules.networks import backbones
    from lightning_modules.networks.batch_norm import reestimate_batch_norm
    from search.trial.task import build_task, statistics_rows

    settings, images, splits = table_data(name, split)
    rows = splits.folds[0].train
    if null == "labels":
        images = ImageSet(with_shuffled_labels(images.index, rows, split), images.pixels)
    task = build_task(settings, images, splits, cache=CACHE / f"evidence-{null}")
    if null == "weights":
        random = backbones.build(
            task.net.architecture, classes=len(task.classes), size=settings.data.pixels, weights="none", seed=split
        )
        task.net.blocks.load_state_dict(random.blocks.state_dict())
        chosen = statistics_rows(settings, rows)
        plain = [task.inputs(part, np.zeros_like(part)) for part in np.array_split(chosen, -(-len(chosen) // 64))]
        reestimate_batch_norm(task.net, [task.net.prefix(x, 0) for x in plain], 0)
    return task


def with_shuffled_labels(index: ImageIndex, rows: np.ndarray, seed: int) -> ImageIndex:
    """The index with the labels of these rows in another order."""
    order = np.random.default_rng([seed, 8]).permutation(len(rows))
    labels = [record.label for record in index.records]
    records = list(index.records)
    for row, other in zip(rows, rows[order], strict=True):
        records[row] = replace(records[row], label=labels[other])
    return replace(index, records=tuple(records))


def plain_row(evidence: Evidence, split: int, null: str) -> dict[str, Any]:
    """Scores by scorer, rounded; NaN becomes None."""
    raw = evidence.to_json()
    scorers = {
        one["name"]: {
            "seconds": round(one["cost"]["seconds"], 3),
            **{name: [_short(v) for v in one[name]] for name in ("values", "null_mean", "null_spread", "depth_scores")},
        }
        for one in raw["scorers"]
        if evidence.scorers[one["name"]].cost.forward_passes and one["name"] != "evidence"
    }
    return {"split": split, "null": null, "cost": raw["cost"], "scorers": scorers}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def jobs(names: list[str]) -> Iterator[tuple[str, int, str]]:
    """(task, split, null) of all splits of the tasks named, or of every table that has been begun; nulls last."""
    for null in NULLS:
        for name in names or TASKS:
            for split in range(TASKS[name].splits):
                if names or (TABLES / name / f"{split}.jsonl").exists():
                    yield name, split, null


def read_evidence(name: str) -> list[dict[str, Any]]:
    """Rows of a task, a half-written last one left out; none where there is no file."""
    file = TABLES / name / "evidence.jsonl"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().split("\n")[1:-1]]


def _prepare(file: Path, head: dict[str, Any]) -> None:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(head) + "\n")
        return
    lines = file.read_text().split("\n")
    if json.loads(lines[0]) != head:
        raise SystemExit(f"{file.name} of {head['task']} was made with other settings; remove it to make it again")
    if lines[-1]:
        file.write_text("\n".join(lines[:-1]) + "\n")


def add_row(name: str, split: int, null: str) -> None:
    """Collect the evidence of one split and append it."""
    import torch

    from lightning_modules.training.allocator import keep_freed_memory
    from search.evidence.collecting import collect_evidence

    keep_freed_memory()
    torch.set_num_threads(1)
    started = time.perf_counter()
    task = evidence_task(name, split, null)
    evidence = collect_evidence(task, again=True)
    if evidence is None:
        raise SystemExit(f"evidence_tables: {name} gives no evidence")
    file = TABLES / name / "evidence.jsonl"
    _prepare(
        file,
        {
            "task": name,
            "settings": list(TASKS[name].settings),
            "blocks": list(evidence.blocks),
        },
    )
    # The simulated images of another seed are other images, so the digest belongs to the row.
    row = {"data_digest": task.index.digest, **plain_row(evidence, split, null)}
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(f"{name} {split} {null}: {time.perf_counter() - started:.1f} s", flush=True)


def main(names: list[str]) -> int:
    """Fill what is missing of the tasks named, with or without a table, or of all that have one."""
    if why := refusal(names, TASKS):
        print(f"evidence_tables: {why}", file=sys.stderr)
        return 2
    for name, split, null in jobs(names):
        if not any(row["split"] == split and row["null"] == null for row in read_evidence(name)):
            add_row(name, split, null)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
