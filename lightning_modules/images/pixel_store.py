"""Pixels on disk: a memory map by content key, complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightning_modules.array_file import copied_rows, map_array, write_array
from lightning_modules.images.value_range import ValueRange, WideValues
from lightning_modules.whole_file import DamagedFileError, from_cache, read_checked, whole_file

__all__ = ["PixelStore", "StoredFile", "open_store", "remove_leftovers", "selected_rows", "write_store"]

_VERSION: Final = 2
_SIDECAR: Final = "store.json"
_PIXELS: Final = "pixels.npy"
_TEMPORARY: Final = ".writing-"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What decoding a file gave.

    Attributes:
        digest: Of its pixels, or None where it is no usable image.
        reason: Why it is not, or None.
        grey_levels, values, sides: As of `ImageRecord`.
    """

    digest: str | None
    reason: str | None = None
    grey_levels: int = 256
    values: WideValues | None = None
    sides: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class PixelStore:
    """One store.

    Attributes:
        pixels: uint8 (N, H, W, C), memory-mapped, read-only; sorted by pixel digest, a picture, or all its tiles, as
            often as listed.
        files: By digest of the file's bytes.
        value_range: That images of more than 8 bits were scaled by.
    """

    folder: Path
    pixels: NDArray[np.uint8]
    files: dict[str, StoredFile]
    value_range: ValueRange


def open_store(folder: Path, on_note: Callable[[str], None] = lambda _: None) -> PixelStore | None:
    """The store in a folder, or None where there is none or it is damaged: all of it is compared with its digests.

    Args:
        on_note: called with a line for the user where it is damaged, and is to be made again.
    """
    try:
        sidecar: dict[str, Any] = json.loads(read_checked(folder / _SIDECAR))
        pixels = map_array(folder / _PIXELS)
    except DamagedFileError as error:
        on_note(f"{error}; the images are decoded again.")
        return None
    except OSError:
        return None
    if sidecar["version"] != _VERSION:
        return None
    files = {file: _stored(*entry) for file, entry in sidecar["files"].items()}
    return PixelStore(folder, pixels, files, ValueRange(*sidecar["value_range"]))


def _stored(
    digest: str | None, reason: str | None, levels: int, values: list[Any] | None, sides: list[int] | None = None
) -> StoredFile:
    """An entry of the sidecar; those of an older version do not say the sides."""
    found = None if sides is None else (sides[0], sides[1])
    return StoredFile(digest, reason, levels, values and WideValues(*values), found)  # type: ignore[arg-type]


def write_store(
    folder: Path,
    rows: Iterable[NDArray[np.uint8]],
    shape: tuple[int, int, int, int],
    files: dict[str, StoredFile],
    value_range: ValueRange,
) -> PixelStore:
    """Writes a store under a temporary name and renames it; one that another process finished meanwhile is kept.

    Args:
        folder: The store's own folder; its parent is created.
        rows: N arrays of uint8 (H, W, C), taken one at a time.
        shape: (N, H, W, C).
        files: See `PixelStore`, as for `value_range`.

    Raises:
        OSError: The disk is full or not writable, or what was written cannot be read back.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent):
        _sweep(folder.parent)
        finished = open_store(folder)
        if finished is not None:
            return finished
        temporary = folder.with_name(f"{_TEMPORARY}{folder.name}-{os.getpid()}")
        try:
            temporary.mkdir()
            write_array(temporary / _PIXELS, (row[None] for row in rows), shape[0])
            entries = {name: astuple(entry) for name, entry in files.items()}
            sidecar = {"version": _VERSION, "shape": shape, "value_range": value_range[:2], "files": entries}
            with whole_file(temporary / _SIDECAR, digest=True) as file:
                file.write_text(json.dumps(sidecar), encoding="ascii")
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    store = open_store(folder)
    if store is None:
        raise OSError(f"the pixels just written to {folder} cannot be read back")
    return store


def selected_rows(
    store: PixelStore, rows: NDArray[np.int64], on_note: Callable[[str], None] = lambda _: None
) -> NDArray[np.uint8]:
    """Some rows of a store, ascending: its own memory map where they are all of them, else one of a copy beside it.

    Args:
        on_note: see `copied_rows`.

    Returns:
        uint8 (len(rows), H, W, C), memory-mapped, read-only.
    """
    if len(rows) == len(store.pixels):
        return store.pixels
    path = store.folder / f"rows-{hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()}.npy"
    if (found := from_cache(path, map_array, on_note)) is not None:  # without the lock, which a read-only cache has not
        return found
    with _locked(store.folder.parent):
        return copied_rows(path, store.pixels, rows, on_note)


def remove_leftovers(stores: Path) -> None:
    """Removes what killed writers left in a folder of stores, unless a process is writing now."""
    from filelock import Timeout

    if any(stores.glob(f"{_TEMPORARY}*")) or any(stores.glob("*/*.tmp")):
        try:
            with _locked(stores, timeout=0):
                _sweep(stores)
        except Timeout:
            return


def _sweep(stores: Path) -> None:
    for path in (*stores.glob(f"{_TEMPORARY}*"), *stores.glob("*/*.tmp")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path, timeout: float = -1) -> Iterator[None]:
    """Holds the folder's lock: only its holder writes, so that whatever temporary another finds is a dead one's."""
    from filelock import FileLock

    with FileLock(folder / ".lock", timeout=timeout):
        yield
