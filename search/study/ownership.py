"""One driver a study: a lock that names who holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout

from lightning_modules.errors import NO_ROOM, InputError, printable
from search.errors import disk_problem

__all__ = ["owned"]


@contextmanager
def owned(folder: Path, name: str, *, what: str = "", advice: str = "") -> Iterator[None]:
    """Keep every other driver away from the study while the block runs.

    Args:
        folder: of the studies; created when missing.
        what: is owned, for the refusal; the study where empty.
        advice: what to do instead of waiting.

    Raises:
        InputError: another process holds it (names it and when it started).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from None
    owner = folder / f"{name}.owner.json"
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{what or f'study {name!r}'} is being run by {_holder(owner)}; wait for it"
            f"{advice or ', or take another search.study'}"
        ) from None
    except OSError as error:
        raise _not_writable(folder, error) from None
    try:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            owner.write_text(json.dumps({"pid": os.getpid(), "started": started, "host": gethostname()}))
        except OSError as error:
            raise _not_writable(folder, error) from None
        yield
    finally:
        with suppress(OSError):  # in a folder that became read-only; the lock decides, not this file
            owner.unlink(missing_ok=True)
        lock.release()


def _holder(owner: Path) -> str:
    """Who holds the lock: its process id, its machine where that is another one, and when it started."""
    try:
        who = json.loads(owner.read_text())
        pid, started, host = int(who["pid"]), printable(str(who["started"])), printable(str(who.get("host")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "another process"
    return f"process {pid}{'' if host in (gethostname(), 'None') else f' on {host}'}, started {started}"


def _not_writable(folder: Path, error: OSError) -> InputError:
    if error.errno in NO_ROOM and (line := disk_problem(error)) is not None:
        return InputError(line)
    return InputError(
        f"{printable(folder)} cannot be written ({error.strerror or error}); make it writable, or take another "
        "tracking.root"
    )
