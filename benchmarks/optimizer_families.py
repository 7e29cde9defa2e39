"""Momentum family against adaptive family: who fails to converge, at which learning rate, and how far the weights go.

From the depth tables (`benchmarks.depth_tables`: momentum, NAG and Adam at three factors, every depth, ten epochs)
and from the runs of `experiment=thesis_rates` (five optimizers at the same rates). Neither trains anything here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.training.optimizers import OPTIMIZERS
from search.thesis.runs import PartRun

__all__ = ["depth_table_rows", "families", "rates_table"]

TABLES = Path(__file__).parent / "tables"
TASKS = ("neu_10", "magnetic_tile", "simulated")


def depth_table_rows(task: str) -> list[dict[str, Any]]:
    """By optimizer and factor, over all splits and the depths with something thawed: how the last epoch ended.

    "failed" is a last-epoch training accuracy (in evaluation mode) below one half, or a loss that was not finite.
    """
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    splits = 0
    for file in sorted((TABLES / task).glob("[0-9]*.jsonl")):
        lines = file.read_text(encoding="utf-8").split("\n")
        head, rows = json.loads(lines[0]), [json.loads(line) for line in lines[1:-1]]
        num_blocks = len(head["flops"]) - 1
        splits += bool(rows)
        for row in rows:
            if row["k"] < num_blocks:
                found.setdefault((row["optimizer"], row["factor"]), []).append(row)
    made = []
    for (optimizer, factor), rows in sorted(found.items()):
        train = np.array([0.0 if "stopped" in row else row["train"][-1] for row in rows])
        made.append(
            {
                "task": task,
                "splits": splits,
                "optimizer": optimizer,
                "rate": OPTIMIZERS[optimizer].reference_rate * factor,
                "trainings": len(rows),
                "failed": int((train < 0.5).sum()),
                "train": float(train.mean()),
                "validation": float(np.mean([row["val"][-1] for row in rows])),
                "test": float(np.mean([row["test"][-1] for row in rows])),
            }
        )
    return made


def families() -> str:
    """The depth tables by optimizer and rate, as Markdown."""
    lines = [
        "| data | optimizer | learning rate | trainings | failed | training accuracy | validation F1 | test F1 |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for task in TASKS:
        for row in depth_table_rows(task):
            lines.append(
                f"| {row['task']} | {row['optimizer']} | {row['rate']:g} | {row['trainings']} | {row['failed']} | "
                f"{row['train']:.3f} | {row['validation']:.3f} | {row['test']:.3f} |"
            )
    return "\n".join(lines)


def rates_table(parts: Sequence[PartRun]) -> str:
    """Optimizers at the same rates, as Markdown: last training and validation accuracy, and the way of the weights."""
    lines: list[str] = []
    for part in parts:
        optimizers = list(dict.fromkeys(run.params["optimizer"] for run in part.arms))
        depth = {run.freeze_depth for run in part.arms}
        title = f"{part.data}, {part.arms[0].params['network']}, {min(depth)} blocks frozen"
        lines += ["", f"| {title}: rate | " + " | ".join(optimizers) + " |", "| --: |" + " --: |" * len(optimizers)]
        rates = sorted({float(run.params["learning_rate"]) for run in part.arms})
        for rate in rates:
            cells = []
            for optimizer in optimizers:
                runs = [
                    r
                    for r in part.arms
                    if r.params["optimizer"] == optimizer and float(r.params["learning_rate"]) == rate
                ]
                if not runs:
                    cells.append("-")
                    continue
                metrics = runs[0].metrics
                change = metrics.get("weight_change")
                moved = "-" if change is None else f"{change:.3f}"
                train, val = (metrics.get(f"final_{s}_accuracy", float("nan")) for s in ("train", "val"))
                cells.append("diverged" if runs[0].diverged else f"{train:.2f} / {val:.2f} / {moved}")
            lines.append(f"| {rate:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines).strip()
