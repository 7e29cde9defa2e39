"""One driver a study: a lock that names who holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lightning_modules.errors import InputError

__all__ = ["owned"]


@contextmanager
def owned(folder: Path, name: str) -> Iterator[None]:
    """Keep every other driver away from the study while the block runs.

    Args:
        folder: of the studies; created when missing.
        name: of the study.

    Raises:
        InputError: another process holds it (names it and when it started).
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / f"{name}.owner.json"
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            who = json.loads(owner.read_text())
            holder = f"process {who['pid']}, started {who['started']}"
        except (OSError, ValueError, KeyError):
            holder = "another process"
        raise InputError(
            f"study {name!r} is being run by {holder}; wait for it, or take another search.study"
        ) from None
    try:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        owner.write_text(json.dumps({"pid": os.getpid(), "started": started}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
