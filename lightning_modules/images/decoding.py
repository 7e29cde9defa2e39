"""The one pass over image files that decodes, checks, hashes and resizes them."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError, Problem, printable
from lightning_modules.images.pixel_store import PixelStore, StoredFile, write_store
from lightning_modules.images.reading import (
    Fit,
    decode_image,
    fit_image,
    read_bytes,
)
from lightning_modules.images.tiling import Tiling
from lightning_modules.images.value_range import FULL_RANGE, ValueRange, choose_range, scale_to_uint8, wide_values

__all__ = ["Decoding", "content_digest", "pixel_digest", "stream"]

Size = tuple[int, int]

_AHEAD_PER_WORKER: Final = 4

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def content_digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def pixel_digest(pixels: NDArray[Any]) -> str:
    """Hash of a picture, the same in whatever kind of file it was saved.

    Args:
        pixels: of any shape, as decoded.
    """
    digest = hashlib.blake2b(repr((pixels.shape, pixels.dtype.name)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def stream(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Results of threads in the order of the items, with few of them in memory at once."""
    workers = _workers()
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= workers * _AHEAD_PER_WORKER:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _workers() -> int:
    # Not os.cpu_count(): a container or a scheduler may lend fewer.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Row:
    file: str
    stored: StoredFile
    pixels: NDArray[np.uint8] | None = None  # (1 or tiles, H, W, C)
    scaled_by: ValueRange = FULL_RANGE


class Decoding:
    """Images decoded, checked, hashed and resized in one threaded pass.

    Rows wait in an empty scratch file, so that memory does not grow with the set and nothing is kept of a set that is
    refused. Other arguments are as in `fit_image` and `decode_image`; `known` is the range where it is known before,
    and `tiling` cuts each image into tiles, of which each becomes a row.

    Attributes:
        files: What each file gave, by the digest of its bytes.
    """

    def __init__(
        self,
        scratch: BinaryIO,
        size: Size,
        fit: Fit,
        max_pixels: int,
        known: ValueRange | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        self.files: dict[str, StoredFile] = {}
        self._scratch, self._size, self._fit, self._max_pixels = scratch, size, fit, max_pixels
        self._places: dict[str, tuple[int, int, int]] = {}  # in the scratch file; rows, channels
        self._tiling = tiling
        self._known, self._guess = known, known or FULL_RANGE
        self._scaled_by: dict[str, ValueRange] = {}

    def run(self, paths: Mapping[str, Path], on_progress: Callable[[int, int], None] | None = None) -> None:
        """Decode one file for each content, by the digest of its bytes; `on_progress` gets (decoded, to decode).

        Raises:
            InputError: A file vanished or changed since its digest was taken.
        """
        for done, row in enumerate(stream(self._decode, paths.items()), 1):
            self._add(row)
            if on_progress is not None:
                on_progress(done, len(paths))

    def scale(self, paths: Mapping[str, Path], value_range: ValueRange) -> None:
        """Decode images of more than 8 bits again that were scaled by another range than this, known once all are."""
        others = [(file, paths[file]) for file, found in self._scaled_by.items() if found[:2] != value_range[:2]]
        self._known = self._guess = value_range
        for row in stream(self._decode, others):
            self._add(row)

    def _decode(self, item: tuple[str, Path]) -> _Row:
        file, path = item
        try:
            data = read_bytes(path, max_pixels=self._max_pixels)
        except InputError as error:
            raise InputError(f"{printable(path)} could be read at first, then not any more: {error}") from None
        if content_digest(data) != file:
            # Not a property of this content: it must not be remembered as one.
            raise InputError(f"{printable(path)} changed while it was being read; run again when it is complete")
        try:
            pixels = decode_image(data, max_pixels=self._max_pixels)
            sides = (pixels.shape[0], pixels.shape[1])
            boxes = [(0, 0, *sides)] if self._tiling is None else self._tiling.boxes(sides, self._size).tolist()
        except InputError as error:
            return _Row(file, StoredFile(None, str(error)))
        scaled_by = self._guess
        scaled = scale_to_uint8(pixels, scaled_by)
        tiles = (scaled[top : top + height, left : left + width] for top, left, height, width in boxes)
        fitted = np.stack([fit_image(tile, self._size, self._fit) for tile in tiles])
        levels = int(np.count_nonzero(np.bincount(fitted.ravel(), minlength=256)))
        stored = StoredFile(pixel_digest(pixels), None, levels, wide_values(pixels, scaled_by), sides)
        return _Row(file, stored, fitted, scaled_by)

    def _add(self, row: _Row) -> None:
        self.files[row.file] = row.stored
        if row.pixels is None:
            return
        place, *_ = self._places.get(row.file, (self._scratch.seek(0, os.SEEK_END), 0, 0))
        self._scratch.seek(place)
        self._scratch.write(row.pixels.tobytes())
        self._places[row.file] = place, len(row.pixels), row.pixels.shape[3]
        if row.stored.values is not None:
            self._scaled_by[row.file] = row.scaled_by
            if self._known is None and len(self._scaled_by).bit_count() == 1:  # or choosing would take n² steps
                self._guess = choose_range([found.values for found in self.files.values() if found.digest])

    def keep(self, folder: Path, digests: Sequence[str | Problem], value_range: ValueRange) -> PixelStore:
        """Writes the store: rows sorted by pixel digest, as `build_index` sorts its records."""
        good = [(self.files[d].digest or "", d) for d in digests if isinstance(d, str) and d in self._places]
        channels = max(self._places[file][2] for _, file in good)
        shape = (sum(self._places[file][1] for _, file in good), *self._size, channels)
        rows = (row for _, file in sorted(good) for row in self._read(file, channels))
        return write_store(folder, rows, shape, self.files, value_range)

    def _read(self, file: str, channels: int) -> NDArray[np.uint8]:
        place, count, own = self._places[file]
        height, width = self._size
        self._scratch.seek(place)
        rows = np.frombuffer(self._scratch.read(count * height * width * own), np.uint8)
        return np.broadcast_to(rows.reshape(count, height, width, own), (count, height, width, channels))
