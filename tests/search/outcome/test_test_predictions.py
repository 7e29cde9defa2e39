"""The winner's answers on the test images: what was logged is read back, and nothing stale is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from search.outcome.test_predictions import TestPredictions, log_test_predictions, read_test_predictions


@pytest.fixture
def task() -> Any:
    records = [SimpleNamespace(path=Path(f"data/{'ab'[k % 2]}/{k}.png")) for k in range(8)]
    return SimpleNamespace(
        classes=("a", "b"), splits=SimpleNamespace(test=np.array([1, 4, 6])), index=SimpleNamespace(records=records),
        settings=SimpleNamespace(data=SimpleNamespace(path=None)), image_rows=lambda rows: rows,
    )  # fmt: skip


@pytest.fixture
def logged(task: Any) -> bytes:
    """As MLflow writes a table."""
    found: dict[str, Any] = {}
    tracker: Any = SimpleNamespace(log_table=lambda _, table, __: found.update(table.to_dict(orient="split")))
    shares = np.array([[0.25, 0.75], [0.6, 0.4], [0.9, 0.1]])
    log_test_predictions(tracker, "run", task, "3", TestPredictions(np.array([1, 4, 6]), np.array([1, 0, 1]), shares))
    return json.dumps({"columns": found["columns"], "data": found["data"]}).encode()


def test_what_was_logged_is_read_back(task: Any, logged: bytes) -> None:
    found = read_test_predictions(logged, task, "3")
    assert found is not None
    assert found.rows.tolist() == [1, 4, 6] and found.labels.tolist() == [1, 0, 1]
    assert found.probabilities.tolist() == [[0.25, 0.75], [0.6, 0.4], [0.9, 0.1]]
    table = json.loads(logged)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["path"] for row in rows] == ["data/b/1.png", "data/a/4.png", "data/a/6.png"]
    assert [row["predicted"] for row in rows] == ["b", "a", "a"]


def test_of_another_version_or_of_other_images_it_is_not_taken(task: Any, logged: bytes) -> None:
    assert read_test_predictions(logged, task, "4") is None
    assert read_test_predictions(None, task, "3") is None
    assert read_test_predictions(b'{"columns": ["path"], "data": [["x"]]}', task, "3") is None
    for others in ([1, 4], [1, 4, 6, 7]):
        task.splits.test = np.array(others)
        assert read_test_predictions(logged, task, "3") is None
