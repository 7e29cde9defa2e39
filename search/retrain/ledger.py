"""What retraining has done, in one sqlite file beside the tracking store: months, steps, roles of images, promotions.

It is the memory of `python -m search.retrain`. Every write is one transaction, on the disk before the call returns, so
whatever kills the program leaves a ledger from which the next call goes on:

- `months`: one row for each time a month is done, keyed by model, month, digest of its data, digest of the settings.
- `steps`: what each of its steps gave. A step that is there is never done twice.
- `images`: the role that an image keeps, and the row that gave it: no model is trained on `held_out` and `regression`
  images.
- `promotions`: which version took whose place, when, with which numbers, and why. A row is written *before* the
  registry's aliases move (state `decided`) and marked `done` after; moving them twice changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from lightning_modules.errors import InputError, printable
from search.errors import StoreError
from search.tracking.store import store_problem

__all__ = ["Ledger", "MonthRow", "PromotionRow", "Role", "Roles", "ledger_path"]

_WAIT_SECONDS = 30.0
_VERSION = 2
_SCHEMA = """
CREATE TABLE months (
  id INTEGER PRIMARY KEY, model TEXT NOT NULL, month TEXT NOT NULL, data_digest TEXT NOT NULL,
  settings_digest TEXT NOT NULL, images INTEGER NOT NULL, why TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'running',
  outcome TEXT, reason TEXT, usable INTEGER NOT NULL DEFAULT 1, run_id TEXT, champion_before TEXT, champion_after TEXT,
  challenger TEXT, started TEXT NOT NULL, finished TEXT, numbers TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX months_by_name ON months (model, month);
CREATE TABLE steps (
  month_id INTEGER NOT NULL REFERENCES months (id), step TEXT NOT NULL, started TEXT NOT NULL, finished TEXT,
  seconds REAL, result TEXT, PRIMARY KEY (month_id, step)
);
CREATE TABLE images (
  model TEXT NOT NULL, digest TEXT NOT NULL, role TEXT NOT NULL, month TEXT NOT NULL,
  month_id INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (model, digest)
) WITHOUT ROWID;
CREATE TABLE promotions (
  id INTEGER PRIMARY KEY, model TEXT NOT NULL, kind TEXT NOT NULL, month TEXT, month_id INTEGER,
  from_version TEXT, to_version TEXT NOT NULL, previous_version TEXT, reason TEXT NOT NULL, numbers TEXT NOT NULL,
  run_id TEXT, state TEXT NOT NULL, decided TEXT NOT NULL, finished TEXT
);
"""

Role = Literal["training", "held_out", "regression", "out"]
"""What an image is used for. `out`: tied by group or picture to both sides, so it is used for nothing."""

Roles = Mapping[str, tuple[Role, str]]
"""Digest of an image -> its role, and the month it came with."""


@dataclass(frozen=True)
class MonthRow:
    """One time a month was done, or is being done.

    Attributes:
        data_digest: of the month's images, labels and groups.
        settings_digest: of all settings that matter.
        why: it is done: new, or what changed since it was done before.
        state: running, done or abandoned.
        outcome: bootstrap, promoted, kept (a challenger was tested), not needed (none was asked for) or refused.
        usable: whether later months may train on its images.
        champion_before: version that met the month, None where there was none.
        champion_after: version afterwards.
        challenger: version of the challenger, None where there was none.
        numbers: by name: accuracy_before and accuracy_after (champion before and after, on the held-out images of the
            newest months) with _low and _high, newest_images, the same of regression_ (the regression set) and others_
            (held-out images of other months), action and depth of retraining, trials, seconds, epoch_equivalents
            (epochs of training everything on the images that this month was trained on) and image_passes (the same
            times those images: full passes, forward and backward, of one image).
    """

    id: int
    month: str
    data_digest: str
    settings_digest: str
    images: int
    why: str
    state: str
    outcome: str | None
    reason: str | None
    usable: bool
    run_id: str | None
    champion_before: str | None
    champion_after: str | None
    challenger: str | None
    started: str
    finished: str | None
    numbers: dict[str, Any]


@dataclass(frozen=True)
class PromotionRow:
    """One change of the champion.

    Attributes:
        kind: bootstrap, promotion or rollback.
        month: that brought it about, where one did.
        from_version: champion before, None for the first.
        previous_version: what the alias `previous` names after, None for nothing.
        reason: in words with numbers.
        state: decided (aliases may not have moved yet) or done.
    """

    id: int
    kind: str
    month: str | None
    from_version: str | None
    to_version: str
    previous_version: str | None
    reason: str
    numbers: dict[str, Any]
    run_id: str | None
    state: str
    decided: str
    finished: str | None


_Row = TypeVar("_Row", MonthRow, PromotionRow)


def ledger_path(root: Path) -> Path:
    """The ledger's file under `tracking.root`."""
    return root / "retraining.db"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """The ledger of one registered model; the file is created when the first line is written.

    Args:
        model: name under which champions are registered.

    Raises:
        InputError: in every method, the file is of a later version.
        StoreError: in every method, the file is damaged, locked by another program, full or not writable.
    """

    def __init__(self, root: Path, model: str) -> None:
        self._path, self._model = ledger_path(root), model
        self._open: sqlite3.Connection | None = None

    def months(self) -> list[MonthRow]:
        """Every time a month was done, in the order begun."""
        return self._rows(MonthRow, "SELECT * FROM months WHERE model = ? ORDER BY id")

    def latest(self) -> dict[str, MonthRow]:
        """Month -> the last time it was done or begun, without those abandoned."""
        return {row.month: row for row in self.months() if row.state != "abandoned"}

    def begin(self, month: str, data: str, settings: str, *, images: int, why: str, champion: str | None) -> MonthRow:
        """A new row, running."""
        with self._write() as database:
            number = database.execute(
                "INSERT INTO months (model, month, data_digest, settings_digest, images, why, champion_before, started)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (self._model, month, data, settings, images, why, champion, _now()),
            ).lastrowid
        return next(row for row in self.months() if row.id == number)

    def abandon(self, row: MonthRow, reason: str) -> None:
        """Give up a row that can no longer be finished as it was begun."""
        query = "UPDATE months SET state = 'abandoned', reason = ?, finished = ? WHERE id = ?"
        with self._write() as database:
            database.execute(query, (reason, _now(), row.id))

    def set_run(self, row: MonthRow, run_id: str) -> None:
        """Note the row's MLflow run."""
        with self._write() as database:
            database.execute("UPDATE months SET run_id = ? WHERE id = ?", (run_id, row.id))

    def steps(self, row: MonthRow) -> dict[str, tuple[dict[str, Any], float]]:
        """Step -> (what it gave, seconds), of those finished."""
        found = self._read(
            "SELECT steps.* FROM steps JOIN months ON month_id = months.id WHERE model = ? AND month_id = ? "
            "AND steps.finished IS NOT NULL ORDER BY steps.rowid",
            row.id,
        )
        return {one["step"]: (json.loads(one["result"]), float(one["seconds"])) for one in found}

    def begin_step(self, row: MonthRow, step: str) -> None:
        """Note that a step has begun."""
        with self._write() as database:
            database.execute(
                "INSERT OR REPLACE INTO steps (month_id, step, started) VALUES (?, ?, ?)", (row.id, step, _now())
            )

    def finish_step(self, row: MonthRow, step: str, result: Mapping[str, Any], seconds: float) -> None:
        """Keep what a step gave: it is not done again."""
        with self._write() as database:
            database.execute(
                "UPDATE steps SET finished = ?, seconds = ?, result = ? WHERE month_id = ? AND step = ?",
                (_now(), seconds, json.dumps(result), row.id, step),
            )

    def roles(self) -> dict[str, tuple[Role, str]]:
        """Digest of an image -> its role, and the month it came with."""
        return {r["digest"]: (r["role"], r["month"]) for r in self._read("SELECT * FROM images WHERE model = ?")}

    def give_roles(self, row: MonthRow, roles: Roles) -> None:
        """Keep roles given in a month; an image that has one keeps that."""
        with self._write() as database:
            database.executemany(
                "INSERT OR IGNORE INTO images (model, digest, role, month, month_id) VALUES (?, ?, ?, ?, ?)",
                [(self._model, digest, role, month, row.id) for digest, (role, month) in roles.items()],
            )

    def trained_on(self, version: str) -> frozenset[str]:
        """Digests of the images that a champion may have been trained on: those to train on when it was made."""
        rows = self._read(
            "SELECT digest FROM images WHERE model = ?1 AND role = 'training' AND month_id <= (SELECT MIN(month_id) "
            "FROM promotions WHERE model = ?1 AND to_version = ?2 AND month_id IS NOT NULL)",
            version,
        )
        return frozenset(row["digest"] for row in rows)

    def finish(
        self,
        rows: list[MonthRow],
        outcome: str,
        reason: str,
        numbers: Mapping[str, Any],
        *,
        usable: bool = True,
        challenger: str | None = None,
        champion: str | None,
        promotion: Mapping[str, Any] | None = None,
    ) -> None:
        """Close months and, where there is one, write down the promotion, in one transaction.

        `promotion` (arguments of `decide`) belongs to the last of the months; its aliases are still to be moved. For
        the rest see `MonthRow`.
        """
        with self._write() as database:
            for row in rows:
                database.execute(
                    "UPDATE months SET state = 'done', outcome = ?, reason = ?, numbers = ?, usable = ?,"
                    " challenger = ?, champion_after = ?, finished = ? WHERE id = ?",
                    (outcome, reason, json.dumps(numbers), usable, challenger, champion, _now(), row.id),
                )
            if promotion is not None:
                self._decide(database, rows[-1], **promotion)

    def decide(self, **promotion: Any) -> None:
        """Write down a change of champion outside any month (`kind`, `to_version`, ... of `PromotionRow`)."""
        with self._write() as database:
            self._decide(database, None, **promotion)

    def _decide(self, database: sqlite3.Connection, row: MonthRow | None, **promotion: Any) -> None:
        values = {"from_version": None, "previous_version": None, "run_id": None, "numbers": {}, **promotion}
        values |= {"numbers": json.dumps(values["numbers"]), "model": self._model, "decided": _now()}
        values |= {"state": "decided", "month": row.month if row else None, "month_id": row.id if row else None}
        names = ", ".join(values)
        # Names of columns are ours; what a user wrote goes in as a parameter.
        query = f"INSERT INTO promotions ({names}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608 # nosec B608
        database.execute(query, tuple(values.values()))

    def promotions(self) -> list[PromotionRow]:
        """Every change of champion, oldest first."""
        return self._rows(PromotionRow, "SELECT * FROM promotions WHERE model = ? ORDER BY id")

    def mark_done(self, promotion: PromotionRow) -> None:
        """Note that the aliases have moved."""
        with self._write() as database:
            database.execute("UPDATE promotions SET state = 'done', finished = ? WHERE id = ?", (_now(), promotion.id))

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _rows(self, kind: type[_Row], query: str) -> list[_Row]:
        read: dict[str, Callable[[Any], Any]] = {"numbers": json.loads, "usable": bool}
        names = [item.name for item in fields(kind)]
        return [kind(**{n: read[n](row[n]) if n in read else row[n] for n in names}) for row in self._read(query)]

    def _read(self, query: str, *more: Any) -> list[sqlite3.Row]:
        if self._open is None and not self._path.exists():
            return []
        with self._explained():
            return self._database().execute(query, (self._model, *more)).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            database = self._database()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # sqlite itself rolls back on a full disk
                    database.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what sqlite says of the file into a `StoreError`."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):  # it says that of this program
            raise
        except sqlite3.Error as error:
            anew = f"begin with another tracking.model_name (champions of {self._model} stay in MLflow)"
            raise StoreError(store_problem(self._path, str(error), anew)) from error

    def _database(self) -> sqlite3.Connection:
        if self._open is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
            try:
                self._open = _prepared(database, self._path)
            except BaseException:
                database.close()
                raise
        return self._open


def _prepared(database: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    database.row_factory = sqlite3.Row
    damage = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(f"malformed: {damage}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
    if version == 1:  # which row gave a role was not kept: as if all had been there before the first
        database.executescript(
            "BEGIN IMMEDIATE; ALTER TABLE images ADD COLUMN month_id INTEGER NOT NULL DEFAULT 0; "
            f"PRAGMA user_version = {_VERSION}; COMMIT;"
        )
    if version not in (0, 1, _VERSION):
        raise InputError(f"{printable(path)} is a ledger of version {version}; this program reads up to {_VERSION}")
    return database
