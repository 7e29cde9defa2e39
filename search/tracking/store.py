"""Whether the store can be used: one line, and what to do, instead of a page of traceback.

MLflow's database is asked before MLflow is; what the disk refuses later is put into words by `search.errors`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from shlex import quote as quoted
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlparse

from lightning_modules.errors import printable
from search.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "adopt", "artifacts_of", "check_root", "check_store", "check_unopened", "database_uri", "explained", "make_store",
    "readable", "reading", "store_problem",
]  # fmt: skip

_WAIT_SECONDS = 5.0
# Of the experiment that MLflow makes with the tables: where the store was. Other experiments may lie anywhere.
_FIRST = re.compile(r"(file:.*/artifacts)/0")
_LOCATIONS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def check_root(root: Path) -> None:
    """Raise a `StoreError` where no store can be: at a file, or in a folder that may not be read."""
    if root.is_file():
        raise StoreError(f"tracking.root must be a folder, got {printable(root)}, which is a file")
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK, effective_ids=True):
        raise StoreError(f"{printable(root)} cannot be read (no permission); make it readable, or name another folder")


def check_store(root: Path, *, write: bool) -> bool:
    """Look into `root`/mlflow.db.

    Args:
        write: whether it will be written to.

    Returns:
        Whether there is such a file.

    Raises:
        StoreError: it is damaged, locked, read-only, no database, or of another MLflow.
    """
    check_root(root)
    file = root / "mlflow.db"
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(file, timeout=_WAIT_SECONDS)) as database:
            found = _schema(database)
            damage = database.execute("PRAGMA quick_check(1)").fetchone()
            if damage[0] != "ok":
                raise sqlite3.DatabaseError(" ".join(str(damage[0]).split()))
            if write:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
    except sqlite3.Error as error:
        raise StoreError(store_problem(file, str(error))) from None
    _check_schema(file, found)
    return True


def _schema(database: sqlite3.Connection) -> str | None:
    """Version of MLflow's tables; None where there are none."""
    tables = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    found = database.execute("SELECT version_num FROM alembic_version").fetchone() if tables[0] else None
    return str(found[0]) if found else None


def _check_schema(file: Path, found: str | None) -> None:
    """Refuse a database of another MLflow before MLflow sees it, which changes an older one without asking."""
    if found is None:
        raise StoreError(
            f"{printable(file)} holds no tables of MLflow; put back a copy of it, or move it away and start studies "
            "anew (search.fresh=true)"
        )
    package = find_spec("mlflow")
    folder = Path(str(package.origin)).parent / "store/db_migrations/versions" if package else Path()
    text = "\n".join(script.read_text() for script in folder.glob("*.py"))
    known, before = (set(re.findall(rf"^{down}revision = .(\w+)", text, re.MULTILINE)) for down in ("", "down_"))
    if found in known - before:
        return
    other, cure = "a newer", "install that one, or put back a copy of the file from before"
    if found in known:
        other, cure = "an older", f"copy it, then run: python -m mlflow db upgrade {quoted(database_uri(file))}"
    raise StoreError(f"{printable(file)} is of {other} MLflow than {version('mlflow')} (schema {found}); {cure}")


def make_store(root: Path) -> None:
    """Let MLflow make its tables in a file that gets its name when it is whole.

    Its migrations are many and run in no transaction: a process killed between them would leave a store that cannot be
    repaired.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = root / "mlflow.db.new"
    for rest in root.glob("mlflow.db.new*"):
        rest.unlink()
    uri, artifacts = database_uri(file), (root / "artifacts").resolve().as_uri()
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


def database_uri(file: Path) -> str:
    """URI of a database, as `mlflow ui --backend-store-uri` takes it."""
    return f"sqlite:///{file.resolve()}"


@contextmanager
def reading(root: Path) -> Iterator[MlflowClient | None]:
    """MLflow's client to read the store under `root` with, which need not be writable; None where there is no store.

    Its errors, and MLflow's in the block, become a `StoreError`.
    """
    with readable(root / "mlflow.db") as file:
        if not check_store(file.parent, write=False):
            yield None
            return
        from mlflow import MlflowClient

        with explained(file.parent):
            yield MlflowClient(database_uri(file), registry_uri=database_uri(file))


def check_unopened(root: Path) -> None:
    """Refuse the store of another program or of another MLflow before anything is read for a run in it.

    It is not opened as databases are, which changes its files: the run may yet be refused. What a writer is about to
    change is not seen, so whatever else is wrong is left to `check_store`.

    Raises:
        StoreError: no database, one without tables of MLflow, or of another MLflow.
    """
    check_root(root)
    if not (file := root / "mlflow.db").exists():
        return
    try:
        place = f"file:{quote(str(file.resolve()))}?immutable=1"
        with closing(sqlite3.connect(place, uri=True)) as database:
            found = _schema(database)
    except sqlite3.Error as error:
        if "not a database" in str(error):
            raise StoreError(store_problem(file, str(error))) from None
        return
    _check_schema(file, found)


@contextmanager
def readable(file: Path) -> Iterator[Path]:
    """A database to read: `file`, or a copy of that name where it or its folder may not be written.

    SQLite writes beside a database that it reads in WAL mode, and into one that a killed program left half written.

    Raises:
        StoreError: it cannot be read; one raised in the block names `file`, not the copy.
    """
    check_root(file.parent)
    if not file.exists() or all(os.access(place, os.W_OK, effective_ids=True) for place in (file, file.parent)):
        yield file
        return
    with TemporaryDirectory(prefix="thawline-") as folder:
        try:
            _copy(file, Path(folder) / file.name)
            yield Path(folder) / file.name
        except StoreError as error:
            raise StoreError(str(error).replace(folder, printable(file.parent))) from error


def _copy(file: Path, copy: Path) -> None:
    """Copy a database that may not be written, while others may write it."""
    try:
        before = file.stat()
        try:
            place = f"file:{quote(str(file.resolve()))}?mode=ro"
            with closing(sqlite3.connect(place, timeout=_WAIT_SECONDS, uri=True)) as source:
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM sqlite_master").fetchone()  # waits for a lock; backup does for ever
                with closing(sqlite3.connect(copy)) as target:
                    return source.backup(target)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
        # SQLite would have to write beside it to read it: no other program has it open, or one was killed.
        for part in ("", "-wal", "-journal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{file}{part}", f"{copy}{part}")
        if (before.st_mtime_ns, before.st_size) != (file.stat().st_mtime_ns, file.stat().st_size):
            raise sqlite3.OperationalError("locked: it changes while it is read")
    except sqlite3.Error as error:
        raise StoreError(store_problem(file, str(error))) from None
    except OSError as error:
        raise StoreError(f"{printable(file)} cannot be read ({error.strerror}); make it readable") from None


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
        return f"{place} cannot be written ({words}); make {root} writable, or take another tracking.root, as a copy"
    if "full" in lower or "no space" in lower:
        return f"{place} cannot be written ({words}); make room on the disk, then run the same command again"
    if "disk i/o" in lower:  # what sqlite says of its shared memory on a full disk, and of a disk that fails
        return (
            f"{place} cannot be read or written ({words}); make room on the disk if it is full, see to it if it is "
            "not, then run the same command again"
        )
    if "not a database" in lower or "malformed" in lower or "corrupt" in lower or "page" in lower or "tree" in lower:
        return f"{place} is damaged ({words}); put back a copy of it, or move it away and {anew}"
    if "current state is deleted" in lower:
        return f"{place} lacks what was deleted in MLflow meanwhile ({words}); tracking.restore=true brings it back"
    if "not found" in lower:
        return f"{place} does not hold what is needed any more ({words}); put back a copy of it, or {anew}"
    return f"{place} failed ({words}); run the same command again, and put back a copy of the file if that fails too"
