"""A store of MLflow without runs, made once and copied: MLflow makes one by all its migrations, which takes seconds."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock


def put_empty_store(root: Path, temporary: pytest.TempPathFactory) -> Path:
    """Let the folder `root` hold such a store; the processes of a session copy the same one."""
    from search.tracking.store import adopt, make_store

    base = temporary.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = shared / "empty store" / "mlflow.db"
    with FileLock(shared / "empty store.lock"):
        if not made.exists():
            made.parent.mkdir(exist_ok=True)
            make_store(made.parent)
            with closing(sqlite3.connect(made)) as database:
                database.execute("PRAGMA journal_mode=WAL")  # as `Tracker` has it
    root.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, root / "mlflow.db")
    os.close(adopt(root))
    return root
