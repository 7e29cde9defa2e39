"""The depth tables as arrays: every curve of every complete split of a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["TABLES", "DepthTable", "Floats", "is_complete", "read_table", "tabled"]

TABLES = Path(__file__).parent / "tables"
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DepthTable:
    """All curves of one task.

    Attributes:
        name: of the task.
        depths: L + 1 of them.
        optimizers: names.
        factors: on their reference rates.
        val: (splits, depths, optimizers, factors, epochs) validation macro F1.
        test: the same of the test images.
        epoch_cost: (depths,) epochs of training everything that an epoch costs.
        prefix_cost: (depths,) the same, for computing what is frozen once.
        splits: numbers of the splits, in the order of the arrays.
        train: training images.
        validation: validation images.
        loss: like `val`, the validation log loss; infinite where training diverged.
    """

    name: str
    depths: int
    optimizers: tuple[str, ...]
    factors: tuple[float, ...]
    val: Floats
    test: Floats
    epoch_cost: Floats
    prefix_cost: Floats
    splits: tuple[int, ...] = ()
    train: int = 0
    validation: int = 0
    loss: Floats | None = None

    @property
    def batches(self) -> int:
        """Training steps in an epoch, 32 images each."""
        return -(-self.train // 32) if self.train else 30

    @property
    def grid_cost(self) -> float:
        """Cost of every configuration at full length."""
        each = len(self.optimizers) * len(self.factors)
        return float(each * (self.epoch_cost * self.val.shape[-1]).sum() + self.prefix_cost.sum())

    def without(self, split: int) -> NDArray[np.int64]:
        """The splits that a replay on `split` does not see; itself where there is no other."""
        others = np.array([s for s in range(len(self.val)) if s != split])
        return others if len(others) else np.array([split])


def tabled(names: Sequence[str]) -> list[str]:
    """The tasks of these names, or all that have a table or evidence.

    Raises:
        ValueError: one has neither.
    """
    found = sorted(folder.name for folder in TABLES.iterdir() if folder.is_dir()) if TABLES.is_dir() else []
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"no table of {unknown[0]!r}; there are {', '.join(found) or 'none'}")
    return list(names) or found


def is_complete(name: str) -> bool:
    """Whether a task has at least one complete split."""
    try:
        return bool(read_table(name).splits)
    except SystemExit:
        return False


@cache
def read_table(name: str) -> DepthTable:
    """All *complete* splits of a task.

    Raises:
        SystemExit: there is none.
    """
    val, test, loss, head, splits = [], [], [], {}, []
    optimizers: tuple[str, ...] = ()
    factors: tuple[float, ...] = ()
    for file in sorted((TABLES / name).glob("[0-9]*.jsonl"), key=lambda f: int(f.stem)):
        found, *rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]  # the last may be half-written
        tried = tuple(dict.fromkeys(row["optimizer"] for row in rows)), tuple(sorted({row["factor"] for row in rows}))
        depths, epochs = len(found["flops"]), found["epochs"]
        each = len(tried[0]) * len(tried[1])
        if len(rows) < depths * each or each < 2:
            continue
        head, (optimizers, factors) = found, tried
        curves = np.zeros((3, depths, len(optimizers), len(factors), epochs))
        curves[2] = np.inf
        for row in rows:
            place = (row["k"], optimizers.index(row["optimizer"]), factors.index(row["factor"]))
            for part, (column, worst) in enumerate((("val", 0.0), ("test", 0.0), ("val_loss", np.inf))):
                # A diverged trial ends early with nothing: it is worth 0.
                values = np.array([worst if v is None else v for v in row[column]])
                curves[part][place][: len(values)] = values
        val.append(curves[0])
        test.append(curves[1])
        loss.append(curves[2])
        splits.append(int(file.stem))
    if not val:
        raise SystemExit(f"replay: no complete table of {name}; make it with python -m benchmarks.depth_tables {name}")
    flops = np.array(head["flops"], float)
    total = flops.sum()
    suffix = np.array([flops[k:].sum() for k in range(len(flops))])
    scored = (head["validation"] + min(head["train"], 256)) / head["train"] / 3
    return DepthTable(
        name, len(flops), optimizers, factors, np.array(val), np.array(test),
        suffix / total * (1 + scored), (total - suffix) / total * (5 + scored) / 3,
        tuple(splits), head["train"], head["validation"], np.array(loss),
    )  # fmt: skip
