"""A study in a PostgreSQL database: opened, owned by one driver, and waited for while its server is away."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from socket import gethostname
from typing import TYPE_CHECKING, Any

from lightning_modules.errors import InputError, printable
from search.errors import StoreError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

__all__ = ["StudyLock", "check_database", "database_errors", "open_database"]

_CONNECTING_SECONDS = 5
_PATIENCE_SECONDS = 300.0  # a server that is started anew, or another that takes its place
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_NAME_LENGTH = 63  # what PostgreSQL keeps of the name of a program


def check_database(url: str) -> None:
    """Look whether the database can be used, before anything is written.

    Raises:
        InputError: the driver is not installed, or the server does not let this user in.
    """
    if find_spec("psycopg2") is None:
        raise InputError("search.storage needs psycopg2, which is not installed: pip install 'thawline[postgresql]'")
    _connect(url).close()


def open_database(
    url: str, *, lock: StudyLock | None = None, say: Callable[[str], None] = lambda _: None
) -> RDBStorage:
    """Optuna's storage in the database; its tables are made where there are none.

    A connection that is lost is made anew before the next use, and the lock taken again before that; while the server
    is away that waits, longer each time.

    Args:
        lock: of the study that is worked on; without one, the study is only read.
        say: called with a line for the user when it begins to wait.

    Raises:
        InputError: the server cannot be reached, another process owns the study (names it and when it started), or the
            tables are of another version of Optuna.
    """
    from optuna.storages import RDBStorage

    def connect() -> Any:
        if lock is not None:
            lock.ensure()
        connection = _connect(url)
        connection.autocommit = False  # as SQLAlchemy wants it
        return connection

    connect().close()  # without patience
    engine = {"pool_pre_ping": True, "creator": lambda: _patiently(connect, say)}
    with database_errors(url):
        try:
            storage = RDBStorage(url, engine_kwargs=engine)
        except RuntimeError as error:  # what Optuna makes of another version's tables
            raise InputError(f"{_place(url)} cannot be used: {printable(str(error).splitlines()[0])}") from error
    return storage


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn what the database raises in the block into a `StoreError` of one line; the study is as it was before."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StoreError(
            f"{_place(url)} failed ({_words(error.__cause__ or error)}); run the same command again once it works"
        ) from error


class StudyLock:
    """An advisory lock on a study: it ends with its connection, and that with this process, wherever that runs."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._connection: Any = None
        self._started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def ensure(self) -> None:
        """Take the lock, unless this process has it.

        Raises:
            InputError: no connection, or another process has it (names it and when it started).
        """
        import psycopg2

        if self._connection is not None:
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except psycopg2.Error:
                self._connection.close()
            else:
                return
        me = f"thawline {os.getpid()} on {gethostname()} since {self._started}"
        self._connection = _connect(self._url, me[:_NAME_LENGTH])
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_key(self._name),))
            if not cursor.fetchone()[0]:
                holder = _holder(cursor, self._name)
                self.close()
                raise InputError(
                    f"study {self._name!r} is being run by {holder}; wait for it, or take another search.study"
                )

    def close(self) -> None:
        """Give the lock back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _holder(cursor: Any, name: str) -> str:
    """Who holds the lock, by the name that its connection has."""
    cursor.execute(
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' "
        "AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND (l.classid::bigint << 32) + l.objid::bigint = %s::bigint",
        (_key(name),),
    )
    row = cursor.fetchone()
    found = re.fullmatch(r"thawline (\d+) on (\S+) since (\S+)", row[0]) if row else None
    return f"process {found[1]} on {printable(found[2])}, started {found[3]}" if found else "another process"


def _key(name: str) -> int:
    """Number of the study's lock: 62 bits, so that both halves of PostgreSQL's key are positive."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=b"thawline").digest()) >> 2


def _connect(url: str, application: str = "thawline") -> Any:
    """A connection in which every statement counts at once.

    Raises:
        InputError: none is to be had.
    """
    import psycopg2
    from sqlalchemy.engine import make_url

    parts = make_url(url)
    arguments = parts.translate_connect_args(username="user", database="dbname") | dict(parts.query)
    try:
        connection = psycopg2.connect(
            **arguments, connect_timeout=_CONNECTING_SECONDS, application_name=application, keepalives_idle=30
        )
    except psycopg2.Error as error:
        raise InputError(f"{_place(url)} cannot be opened ({_words(error)})") from error
    connection.autocommit = True
    return connection


def _patiently(connect: Callable[[], Any], say: Callable[[str], None]) -> Any:
    """A connection, waited for while the server is away or believes that a lost connection still has the lock.

    Raises:
        StoreError: it does not come back.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        try:
            return connect()
        except InputError as error:
            waited = time.monotonic() - began
            if waited > _PATIENCE_SECONDS:
                raise StoreError(f"{error} (for {waited:.0f} s); run the same command again once it works") from error
            if pause == _FIRST_PAUSE:
                say(f"{error}. Waiting for it, {_PATIENCE_SECONDS:g} s at most.")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _place(url: str) -> str:
    from sqlalchemy.engine import make_url

    return f"search.storage={printable(make_url(url).render_as_string(hide_password=True))}"


def _words(error: BaseException) -> str:
    return printable(" ".join(str(error).split("\n[SQL")[0].split()))[:200]
