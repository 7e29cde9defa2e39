"""Pixels on disk: a memory map by content key, complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PixelStore", "StoredFile", "open_store", "remove_leftovers", "selected_rows", "write_store"]

_VERSION: Final = 1
_SIDECAR: Final = "store.json"
_PIXELS: Final = "pixels.npy"
_TEMPORARY: Final = ".writing-"
_COPY_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What decoding a file gave.

    Attributes:
        digest: Of its pixels, or None where it is no usable image.
        reason: Why it is not, or None.
        maximum: Largest value of an image of more than 8 bits, else None.
    """

    digest: str | None
    reason: str | None = None
    maximum: int | None = None


@dataclass(frozen=True, eq=False)
class PixelStore:
    """One store.

    Attributes:
        pixels: uint8 (N, H, W, C), memory-mapped, read-only; sorted by pixel digest, a picture as often as listed.
        files: By digest of the file's bytes.
        white_level: Value of white that the images of more than 8 bits were divided by.
    """

    folder: Path
    pixels: NDArray[np.uint8]
    files: dict[str, StoredFile]
    white_level: int


def open_store(folder: Path) -> PixelStore | None:
    """The store in a folder, or None where there is none or it is damaged (sidecar, shape or length)."""
    try:
        sidecar: dict[str, Any] = json.loads((folder / _SIDECAR).read_bytes())
        if sidecar["version"] != _VERSION:
            return None
        files = {name: StoredFile(*entry) for name, entry in sidecar["files"].items()}
        pixels = np.load(folder / _PIXELS, mmap_mode="r", allow_pickle=False)
        if list(pixels.shape) != sidecar["shape"] or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
            return None
        return PixelStore(folder, pixels, files, int(sidecar["white_level"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def write_store(
    folder: Path,
    rows: Iterable[NDArray[np.uint8]],
    shape: tuple[int, int, int, int],
    files: dict[str, StoredFile],
    white_level: int,
) -> PixelStore:
    """Writes a store under a temporary name and renames it; one that another process finished meanwhile is kept.

    Args:
        folder: The store's own folder; its parent is created.
        rows: N arrays of uint8 (H, W, C), taken one at a time.
        shape: (N, H, W, C).
        files: See `PixelStore`, as for `white_level`.

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
            with (temporary / _PIXELS).open("wb") as file:
                _write_npy(file, rows, shape)
            entries = {name: [entry.digest, entry.reason, entry.maximum] for name, entry in files.items()}
            sidecar = {"version": _VERSION, "shape": shape, "white_level": white_level, "files": entries}
            with (temporary / _SIDECAR).open("w", encoding="ascii") as text:
                json.dump(sidecar, text)
                _to_disk(text.fileno())
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


def selected_rows(store: PixelStore, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Some rows of a store, ascending: its own memory map where they are all of them, else one of a copy beside it.

    Returns:
        uint8 (len(rows), H, W, C), memory-mapped, read-only.
    """
    if len(rows) == len(store.pixels):
        return store.pixels
    shape = (len(rows), *store.pixels.shape[1:])
    path = store.folder / f"rows-{hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()}.npy"
    found = _load(path, shape)
    if found is not None:
        return found
    with _locked(store.folder.parent):
        temporary = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                _write_npy(file, (store.pixels[row] for row in rows), shape)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    found = _load(path, shape)
    if found is None:
        raise OSError(f"the pixels just written to {path} cannot be read back")
    return found


def remove_leftovers(stores: Path) -> None:
    """Removes what killed writers left in a folder of stores, unless a process is writing now."""
    from filelock import Timeout

    if any(stores.glob(f"{_TEMPORARY}*")) or any(stores.glob(f"*/{_TEMPORARY}*")):
        try:
            with _locked(stores, timeout=0):
                _sweep(stores)
        except Timeout:
            return


def _sweep(stores: Path) -> None:
    for path in (*stores.glob(f"{_TEMPORARY}*"), *stores.glob(f"*/{_TEMPORARY}*")):
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


def _load(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write_npy(file: BinaryIO, rows: Iterable[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for row in rows:
        file.write(row.tobytes())
    file.flush()
    _to_disk(file.fileno())


def _to_disk(descriptor: int) -> None:
    # A rename that reaches the disk before the data would leave a store of the right length full of zeros.
    os.fsync(descriptor)
