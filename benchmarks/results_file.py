"""Rows of results in benchmarks/results/NAME.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["read_rows", "write_rows"]

_FOLDER = Path(__file__).parent / "results"


def read_rows(name: str) -> list[dict[str, Any]]:
    """Rows of earlier runs, none where there were none."""
    file = _FOLDER / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return rows


def write_rows(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Replace the rows."""
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.json").write_text(json.dumps(list(rows), indent=1) + "\n")
