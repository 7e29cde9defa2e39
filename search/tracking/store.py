"""Whether the store can be used: one line, and what to do, instead of a page of traceback.

MLflow's database is asked before MLflow is; what the disk refuses later is put into words by `search.errors`.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from lightning_modules.errors import printable
from search.errors import StoreError

__all__ = ["adopt", "artifacts_of", "check_store", "explained", "make_store", "store_problem"]

_WAIT_SECONDS = 5.0
# Of the experiment that MLflow makes with the tables: where the store was. Other experiments may lie anywhere.
_FIRST = re.compile(r"(file:.*/artifacts)/0")
_LOCATIONS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


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


def adopt(root: Path) -> int:
    """Let every location in the database lie below `root`: MLflow's are absolute, and the store may be a copy.

    Returns:
        A descriptor to close; while it is open, nobody may open the same folder under another path (a second mount).

    Raises:
        StoreError: the folder is in use under another path, or the database cannot be written.
    """
    place, here = os.open(root, os.O_RDONLY), (root / "artifacts").resolve().as_uri()
    try:
        with closing(sqlite3.connect(root / "mlflow.db", timeout=_WAIT_SECONDS)) as database, database:
            first = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
            there = found[1] if first and (found := _FIRST.fullmatch(first[0])) else here
            if there != here:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for table, column in _LOCATIONS.items():
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 # nosec B608
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here, len(there) + 1, there, len(there) + 1, f"{there}/"),
                    )
        fcntl.flock(place, fcntl.LOCK_SH)
    except BlockingIOError:
        os.close(place)
        raise StoreError(
            f"{printable(root)} is in use as {printable(_path(there).parent)}; run this command under that path, or "
            "when what uses it has ended"
        ) from None
    except sqlite3.Error as error:
        os.close(place)
        raise StoreError(store_problem(root / "mlflow.db", str(error))) from None
    return place


def _path(location: str) -> Path:
    return Path(unquote(urlparse(location).path))


def artifacts_of(root: Path, holder: str) -> Path:
    """Folder of the artifacts of a run or a logged model.

    Not asked of MLflow: it keeps absolute paths, which lead to the old place where the store was moved or copied.
    """
    return root / "artifacts" / ("models" if holder.startswith("m-") else "") / holder / "artifacts"


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
