"""Outputs of frozen blocks, computed once for all trials and kept on disk.

A frozen block computes the same thing in every epoch of every trial. The cache holds what leaves the first `cut`
blocks for every (image, view) pair that training needs, as a memory-mapped array in one fixed precision. Rounding
happens at *every* cut on the way, also when nothing is cached, so a trial is the same trial with and without cache
and from whichever shallower cut its activations were computed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.blocknet import BlockNet

__all__ = ["PRECISIONS", "ActivationCache"]

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# Blocks always see batches of this many images, the last one filled up: how a convolution is summed depends on the
# batch size, and a difference of the last bit becomes one of the last *stored* bit when it is rounded.
_CHUNK = 32


class ActivationCache:
    """Activations at any cut of a pre-trained network, from disk where they fit and are there, else computed.

    Args:
        net: the pre-trained network; it is used in eval mode and without gradients.
        inputs: gives images (B, 3, H, W) in [0, 1], channels_last, for arrays of B rows and B views.
        pairs: (P, 2) int64 array of the (row, view) pairs that training and validation use.
        precision: name of `PRECISIONS` to which activations are rounded.
        folder: where the files of all data sets, networks and cuts are.
        key: digest of everything the activations depend on beside the cut (data, weights, views, size, precision).
        capacity: bytes all files of `folder` may take together; least recently used files go first. 0 stores nothing.
        on_note: called with a line when a cut is computed instead of stored, once a cut.
    """

    def __init__(
        self,
        net: BlockNet,
        inputs: Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor],
        pairs: NDArray[np.int64],
        *,
        precision: str,
        folder: Path,
        key: str,
        capacity: int,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if capacity < 0:
            raise ValueError(f"capacity must be 0 or more bytes, got {capacity}")
        self.net = net
        self._inputs = inputs
        self._dtype = PRECISIONS[precision]
        self._stored_as: np.dtype[Any] = np.dtype(np.int32 if precision == "float32" else np.int16)
        self._folder = folder
        self._key = key
        self._capacity = capacity
        self._on_note = on_note
        self._pairs = pairs
        rows, views = pairs.max(0) + 1 if len(pairs) else (0, 0)
        self._position = np.full((rows, views), -1, np.int64)
        self._position[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
        self._open: dict[int, NDArray[np.signedinteger]] = {}
        self._computed: set[int] = {0}
        self.decisions: dict[int, str] = {}

    def at(self, cut: int, rows: NDArray[np.int64], views: NDArray[np.int64]) -> Tensor:
        """Activations (B, C, H, W) float32 at `cut` for B (row, view) pairs, on the network's device.

        The first call for a cut stores all its pairs, from the nearest shallower cut that is stored.
        """
        self._prepare(cut)
        if cut not in self._open:
            return self._compute(cut, rows, views)
        positions = self._position[rows, views]
        if (positions < 0).any():
            raise KeyError("a (row, view) pair was asked for that the cache was not made for")
        return self._read(cut, positions)

    def shapes(self, cut: int) -> tuple[int, ...]:
        """(C, H, W) of the activations at `cut`."""
        with torch.no_grad():
            images = self._inputs(self._pairs[:1, 0], self._pairs[:1, 1])
            return tuple(self.net.eval().prefix(images, cut).shape[1:])

    def _round(self, activations: Tensor) -> Tensor:
        if self._dtype is torch.float16:  # values beyond its range would come back infinite
            activations = activations.clamp(-65504, 65504)
        return activations.to(self._dtype).float()

    @torch.no_grad()
    def _compute(self, cut: int, rows: NDArray[np.int64], views: NDArray[np.int64], source: int = 0) -> Tensor:
        self.net.eval()
        if cut == 0:  # normalising is done image by image
            return self.net.prefix(self._inputs(rows, views), 0)
        parts = []
        for start in range(0, len(rows), _CHUNK):
            chunk = np.arange(start, start + _CHUNK)
            chunk[chunk >= len(rows)] = start
            parts.append(self._run(cut, rows[chunk], views[chunk], source)[: len(rows) - start])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _run(self, cut: int, rows: NDArray[np.int64], views: NDArray[np.int64], source: int) -> Tensor:
        if source:
            activations = self._read(source, self._position[rows, views])
        else:
            activations = self.net.prefix(self._inputs(rows, views), 0)
        for block in range(source, cut):
            activations = self._round(self.net.between(activations, block, block + 1))
        return activations

    def _read(self, cut: int, positions: NDArray[np.int64]) -> Tensor:
        stored = torch.from_numpy(self._open[cut][positions]).view(self._dtype)
        return stored.to(self.net.mean.device).float().permute(0, 3, 1, 2)

    def _prepare(self, cut: int) -> None:
        if cut in self._open or cut in self._computed:
            return
        path = self._folder / self._key / f"cut{cut}.npy"
        channels, height, width = self.shapes(cut)
        shape = (len(self._pairs), height, width, channels)
        size = int(np.prod(shape)) * self._stored_as.itemsize
        if size > self._capacity:
            self._skip(cut, f"{size / 1e9:.2f} GB, more than the cache of {self._capacity / 1e9:.2f} GB")
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f"{self._key}.lock"):
                if not _valid(path, shape, self._stored_as):
                    self._make_room(size)
                    self._write(path, cut, shape)
            self._open[cut] = np.load(path, mmap_mode="r")
            os.utime(path)
            self.decisions[cut] = f"stored, {size / 1e9:.2f} GB"
        except OSError as error:
            self._skip(cut, f"could not be stored: {error.strerror or error}")

    def _skip(self, cut: int, reason: str) -> None:
        self._computed.add(cut)
        self.decisions[cut] = f"computed: {reason}"
        self._on_note(f"activations at cut {cut} are computed in every epoch: {reason}")

    def _write(self, path: Path, cut: int, shape: tuple[int, ...]) -> None:
        source = max((c for c in self._open if c < cut), default=0)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            # Written as a stream: on a full disk a write raises, where touching a memory map would kill the process.
            with temporary.open("wb") as file:
                np.lib.format.write_array_header_2_0(
                    file, {"descr": self._stored_as.str, "fortran_order": False, "shape": shape}
                )
                for chunk in self._chunks():
                    activations = self._compute(cut, chunk[:, 0], chunk[:, 1], source)
                    stored = activations.to(self._dtype).permute(0, 2, 3, 1).contiguous().cpu()
                    file.write(stored.view(getattr(torch, self._stored_as.name)).numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(self._pairs), _CHUNK):
            yield self._pairs[start : start + _CHUNK]

    def _make_room(self, size: int) -> None:
        files = sorted(self._folder.glob("*/cut*.npy"), key=lambda f: f.stat().st_mtime)
        in_use = sum(f.stat().st_size for f in files)
        for file in files:
            if in_use + size <= self._capacity:
                break
            in_use -= file.stat().st_size
            file.unlink(missing_ok=True)  # a process that has it mapped keeps its pages
            if not any(file.parent.iterdir()):
                shutil.rmtree(file.parent, ignore_errors=True)
        (self._folder / self._key).mkdir(parents=True, exist_ok=True)

    def describe(self) -> str:
        """What was decided for each cut, as JSON."""
        return json.dumps({str(cut): line for cut, line in sorted(self.decisions.items())})


def _valid(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return bool(found.shape == shape and found.dtype == dtype)
