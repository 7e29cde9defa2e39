"""Arrays in files with a digest: written as streams, read as memory maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import printable
from lightning_modules.whole_file import DamagedFileError, check_digest, from_cache, whole_file

__all__ = ["copied_rows", "map_array", "write_array"]

_CHUNK = 256


def write_array(path: Path, parts: Iterable[NDArray[Any]], rows: int) -> None:
    """Write arrays, at least one, behind each other as one of `rows` rows; the file is whole or not there.

    The caller is the only writer of `path`.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    # Written as a stream: on a full disk a write raises, where touching a memory map would kill the process.
    with whole_file(path, digest=True) as temporary, temporary.open("wb") as file:
        for number, part in enumerate(parts):
            if number == 0:
                header = {"descr": part.dtype.str, "fortran_order": False, "shape": (rows, *part.shape[1:])}
                np.lib.format.write_array_header_2_0(file, header)
            file.write(part.tobytes())


def map_array(path: Path) -> NDArray[Any]:
    """The read-only memory map of what `write_array` wrote, all of it compared with its digest first.

    Raises:
        DamagedFileError: it was changed or cut since, or is no such array.
        OSError: it is not there, or cannot be read.
    """
    check_digest(path)
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise DamagedFileError(f"{printable(path)} is no array") from None
    return found


def copied_rows(
    path: Path, source: NDArray[Any], rows: NDArray[np.int64], on_note: Callable[[str], None]
) -> NDArray[Any]:
    """The memory map of a copy of some rows of an array, which is written first unless it is at `path`.

    The caller is the only writer of `path`, whose name says which rows of which array they are.

    Args:
        on_note: called with a line for the user where the copy was damaged and is made again.

    Raises:
        OSError: the copy cannot be written, or not read back.
    """
    found = from_cache(path, map_array, on_note)
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = (source[rows[start : start + _CHUNK]] for start in range(0, max(1, len(rows)), _CHUNK))
        write_array(path, parts, len(rows))
        found = from_cache(path, map_array)
    if found is None:
        raise OSError(f"the pixels just written to {path} cannot be read back")
    return found
