"""Whether the store can be used: one line, and what to do, instead of a page of traceback.

MLflow's database is asked before MLflow is; what the disk refuses later is put into words by `search.errors`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lightning_modules.errors import printable
from search.errors import StoreError

__all__ = ["check_store", "explained", "make_store", "store_problem"]

_WAIT_SECONDS = 5.0


def check_store(root: Path, *, write: bool) -> bool:
    """Look into `root`/mlflow.db.

    Args:
        write: whether it will be written to.

    Returns:
        Whether MLflow has made its tables there; False without a file.

    Raises:
        StoreError: it is damaged, locked, read-only, or no database.
    """
    file = root / "mlflow.db"
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(file, timeout=_WAIT_SECONDS)) as database:
            found = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            damage = database.execute("PRAGMA quick_check(1)").fetchone()
            if damage[0] != "ok":
                raise sqlite3.DatabaseError(" ".join(str(damage[0]).split()))
            if write:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
    except sqlite3.Error as error:
        raise StoreError(store_problem(file, str(error))) from None
    return bool(found[0])


def make_store(root: Path) -> None:
    """Let MLflow make its tables in a file that gets its name when it is whole.

    Its migrations are many and run in no transaction: a process killed between them would leave a store that cannot be
    repaired.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = root / "mlflow.db.new"
    for rest in root.glob("mlflow.db.new*"):
        rest.unlink()
    uri, artifacts = f"sqlite:///{file.resolve()}", (root / "artifacts").resolve().as_uri()
    store = SqlAlchemyStore(uri, artifacts)  # type: ignore[no-untyped-call]
    store.engine.dispose()
    file.replace(root / "mlflow.db")


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what MLflow raises in the block about its store under `root` into a `StoreError`."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise StoreError(store_problem(root / "mlflow.db", str(error))) from error


def store_problem(file: Path, problem: str, anew: str = "start studies anew (search.fresh=true)") -> str:
    """One line on what is wrong with a database, and what to do.

    Args:
        problem: what sqlite, SQLAlchemy or MLflow said.
        anew: what to do where it is damaged and there is no copy of it.
    """
    place, root = printable(file), printable(file.parent)
    # SQLAlchemy puts advice for programmers before sqlite's words, and the whole query behind them.
    core = re.search(r"\(sqlite3\.\w+\) ([^\[\n]+)", problem)
    words = printable(" ".join((core[1] if core else problem).split()))[:200]
    lower = problem.lower()
    if "locked" in lower:
        return (
            f"{place} is locked by another program ({words}); close what has it open, then run the same command again"
        )
    if "readonly" in lower or "read-only" in lower or "unable to open" in lower or "permission" in lower:
        return f"{place} cannot be written ({words}); make {root} writable, or take another tracking.root"
    if "full" in lower or "no space" in lower:
        return f"{place} cannot be written ({words}); make room on the disk, then run the same command again"
    if "disk i/o" in lower:  # what sqlite says of its shared memory on a full disk, and of a disk that fails
        return (
            f"{place} cannot be read or written ({words}); make room on the disk if it is full, see to it if it is "
            "not, then run the same command again"
        )
    if "not a database" in lower or "malformed" in lower or "corrupt" in lower or "page" in lower or "tree" in lower:
        return f"{place} is damaged ({words}); put back a copy of it, or move it away and {anew}"
    return f"{place} failed ({words}); the same command goes on where this one stopped"
