"""The images of some months as a set of their own: what a month's result depends on, whatever arrives later."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_modules.images.index import ImageIndex, ImageRecord
from lightning_modules.images.store import ImageSet

__all__ = ["image_subset", "month_digest"]

_CHUNK = 256


def month_digest(records: Iterable[ImageRecord]) -> str:
    """Digest of images, labels and groups, whatever their paths and order."""
    lines = sorted(json.dumps([r.digest, r.label, r.month, r.group]) for r in records)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def image_subset(
    images: ImageSet, rows: NDArray[np.int64], classes: tuple[str, ...], folder: Path
) -> tuple[ImageSet, Path | None]:
    """Some rows of a set, with the classes that a network knows.

    Args:
        images: the whole set.
        rows: ascending, int64.
        classes: sorted; every label of the rows is among them.
        folder: where the rows' pixels are kept, unless they are all of the set's.

    Returns:
        The subset, its pixels memory-mapped, and the file that holds them, which the caller removes.

    Raises:
        OSError: the file cannot be written.
    """
    records = tuple(images.index.records[row] for row in rows.tolist())
    index = ImageIndex(records, classes, (), (), month_digest(records), images.index.white_level)
    if len(rows) == len(images.index.records):
        return ImageSet(index, images.pixels), None
    source = images.pixels
    origin = str(source.filename) if isinstance(source, np.memmap) else index.digest
    key = hashlib.blake2b(origin.encode("utf-8", "surrogateescape") + rows.tobytes(), digest_size=12).hexdigest()
    path = folder / f"pixels-{key}.npy"
    shape = (len(rows), *source.shape[1:])
    if not path.exists():
        _write(path, source, rows, shape)
    return ImageSet(index, np.load(path, mmap_mode="r", allow_pickle=False)), path


def _write(path: Path, source: NDArray[np.uint8], rows: NDArray[np.int64], shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        # A stream: on a full disk it raises, where a memory map would end the process.
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for start in range(0, len(rows), _CHUNK):
                file.write(np.ascontiguousarray(source[rows[start : start + _CHUNK]]).tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
