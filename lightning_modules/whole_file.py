"""Files that are whole or not there, for places with one writer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file takes its place when the block ends without an error, else nothing stays.

    The caller is the only writer, by a lock or otherwise: what lies under the temporary name is what a killed one left,
    and is written over.

    Raises:
        OSError: out of the block, or the file cannot take its place.
    """
    temporary = path.with_suffix(".tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):  # in a folder that became read-only
            temporary.unlink(missing_ok=True)
