"""What the winner answers on each test image: a table of the parent run, `test/predictions.json`.

It is made of the answers of the one reading of the test images, or once more by the report of a study that has none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_modules.errors import printable

if TYPE_CHECKING:
    from search.tracking.tracker import Tracker
    from search.trial.task import Task

__all__ = ["ARTIFACT", "TestPredictions", "image_name", "log_test_predictions", "read_test_predictions"]

ARTIFACT = "test/predictions.json"
"""Artifact of the parent run."""

_DIGITS = 6


@dataclass(frozen=True, eq=False)
class TestPredictions:
    """Answers by image.

    Attributes:
        rows: of the task's index, (N,): the image, or the tile of it that decided.
        labels: (N,) int64.
        probabilities: calibrated, (N, K).
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def image_name(task: Task, row: int) -> str:
    """Path of an image as pages and tables show it: within the data folder where it lies there."""
    path, root = task.index.records[row].path, task.settings.data.path
    if root is None:
        return printable(Path(*path.parts[-3:]))  # month, class and file of a simulated image
    folder = root if root.is_dir() else root.parent
    return printable(path.relative_to(folder) if path.is_relative_to(folder) else path)


def log_test_predictions(tracker: Tracker, run_id: str, task: Task, version: str, found: TestPredictions) -> None:
    """Log the table, instead of one that is there.

    Args:
        run_id: the parent run.
        version: of the model that answered.
    """
    table = pd.DataFrame(
        {
            "path": [image_name(task, int(row)) for row in found.rows],
            "label": [task.classes[label] for label in found.labels],
            "predicted": [task.classes[place] for place in found.probabilities.argmax(1)],
            "row": found.rows,
            "version": version,
        }
    )
    shares = pd.DataFrame(found.probabilities.round(_DIGITS), columns=[f"p({name})" for name in task.classes])
    tracker.log_table(run_id, pd.concat([table, shares], axis=1), ARTIFACT)


def read_test_predictions(raw: bytes | None, task: Task, version: str) -> TestPredictions | None:
    """What was logged; None where there is none of this version, or of other images than the task's test images."""
    if raw is None:
        return None
    table = json.loads(raw)
    frame = pd.DataFrame(table["data"], columns=table["columns"])
    if not {"row", "version", "label"} <= set(frame) or set(frame["version"].astype(str)) != {version}:
        return None
    rows = frame["row"].to_numpy(np.int64)
    whole = np.isin(rows, task.splits.test).all() and len(rows) == len(task.image_rows(task.splits.test))
    if not whole or set(frame["label"]) - set(task.classes):
        return None
    labels = np.array([task.classes.index(name) for name in frame["label"]], dtype=np.int64)
    return TestPredictions(rows, labels, frame[[f"p({name})" for name in task.classes]].to_numpy(np.float64))
