"""Outputs of frozen blocks, computed once for all trials and kept on disk.

A frozen block computes the same thing in every epoch of every trial. The cache holds what leaves the first `cut`
blocks for the (image, view) pairs that training needs (a cut is the place behind that many blocks, as in split
inference; a trial reads at the cut of its freeze depth), as memory-mapped arrays in one fixed precision. Rounding
happens at *every* cut on the way, also when nothing is cached, so a trial is the same trial with and without cache
and from whichever shallower cut its activations were computed.

A cut is stored in shards, one for each pass over the training images, and each when it is first asked for: a trial
that is stopped after one epoch pays for one pass. A shard is one file, whole or not there. Each process compares it
with its digest once, when it opens it: it then reads all of it in one pass at least.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.array_file import map_array, write_array
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.cut_choice import (
    CutChoice,
    available_memory,
    choose_cut,
    load_choices,
    measured,
    save_choice,
)
from lightning_modules.whole_file import from_cache

__all__ = ["PRECISIONS", "ActivationCache"]

Pairs = NDArray[np.int64]

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# NumPy has no bfloat16, so every precision is stored as the integers of its bits.
_INTEGERS = {2: (np.dtype(np.int16), torch.int16), 4: (np.dtype(np.int32), torch.int32)}
# Blocks always see batches of this many images, the last one filled up: how a convolution is summed depends on the
# batch size, and a difference of the last bit becomes one of the last *stored* bit when it is rounded.
_CHUNK = 32
_MARK_SECONDS = 30.0  # between two marks of a file as used


class ActivationCache:
    """Activations at any cut of a pre-trained network, from disk where they fit and are there, else computed.

    Args:
        net: the pre-trained network; it is used in eval mode and without gradients.
        inputs: gives images (B, 3, H, W) in [0, 1], channels_last, for arrays of B rows and B views.
        shards: (P, 2) int64 arrays of the (row, view) pairs that are stored together, no pair in two of them; pairs in
            none are computed whenever they are asked for.
        precision: name of `PRECISIONS` to which activations are rounded.
        folder: where the files of all data sets, networks and cuts are.
        key: digest of everything the activations depend on beside the cut (data, weights, views, size, precision).
        capacity: bytes all files of `folder` may take together; least recently used files go first. 0 stores nothing.
        measure: whether a cut is stored only if measurements say that it pays (`cut_choice`), or whenever it fits.
        device_bytes: memory of the network's device that activations may take; None is half of what a GPU has free
            now, and 0 on a CPU, where the page cache keeps the files.
        on_note: called with a line when a cut cannot be stored, once a cut, and when a damaged file is made again.
    """

    def __init__(
        self,
        net: BlockNet,
        inputs: Callable[[Pairs, Pairs], Tensor],
        shards: Sequence[Pairs],
        *,
        precision: str,
        folder: Path,
        key: str,
        capacity: int,
        measure: bool = False,
        device_bytes: int | None = None,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if capacity < 0:
            raise ValueError(f"capacity must be 0 or more bytes, got {capacity}")
        self.net = net
        self._inputs = inputs
        self._dtype = PRECISIONS[precision]
        self._root, self._folder = folder, folder / key
        self._capacity, self._measure, self._on_note = capacity, measure, on_note
        self._device_bytes = _free_on_device(net.mean.device) if device_bytes is None else device_bytes
        self._shards = tuple(shards)
        rows, views = (int(n) + 1 for n in np.concatenate([np.full((1, 2), -1), *shards]).max(0))
        # Where a pair lies: (shard, position in it), -1 where it is not stored.
        self._place = np.full((rows, views, 2), -1, np.int64)
        for number, pairs in enumerate(self._shards):
            self._place[pairs[:, 0], pairs[:, 1]] = np.stack([np.full(len(pairs), number), np.arange(len(pairs))], 1)
        self._open: dict[tuple[int, int], NDArray[np.signedinteger]] = {}
        self._marked: dict[tuple[int, int], float] = {}  # when each was last marked as used, by a monotonic clock
        self._resident: dict[tuple[int, int], Tensor] = {}  # the least recently used first
        self._computed: set[int] = {0}
        self.decisions: dict[int, str] = {}

    def at(self, cut: int, rows: Pairs, views: Pairs) -> Tensor:
        """Activations (B, C, H, W) float32 at `cut` for B (row, view) pairs, on the network's device.

        The first call for a pair stores its whole shard, from the nearest shallower cut that is stored.
        """
        place = self._places(rows, views)
        shards = [int(shard) for shard in np.unique(place[:, 0])]
        if cut in self._computed or min(shards, default=-1) < 0 or not all(self._store(cut, s) for s in shards):
            return self._compute(cut, rows, views)
        return self._read(cut, place)

    @torch.no_grad()
    def through(self, images: Tensor, cut: int) -> Tensor:
        """What leaves the first `cut` blocks, rounded as always, of images (B, 3, H, W) in [0, 1] that are no pairs.

        Nothing of it is kept.
        """
        activations = self.net.eval().prefix(images, 0)
        for block in range(cut):
            activations = self._round(self.net.between(activations, block, block + 1))
        return activations

    def shape(self, cut: int) -> tuple[int, int, int]:
        """(C, H, W) of the activations at `cut`, by running one image."""
        first = next(pairs for pairs in self._shards if len(pairs))[:1]
        with torch.no_grad():
            channels, height, width = self.net.eval().prefix(self._inputs(first[:, 0], first[:, 1]), cut).shape[1:]
        return channels, height, width

    def describe(self) -> str:
        """What was decided for each cut, by this process or another, as JSON."""
        decided = {cut: str(choice) for cut, choice in load_choices(self._folder).items()} | self.decisions
        return json.dumps({str(cut): line for cut, line in sorted(decided.items())}, indent=1)

    def _places(self, rows: Pairs, views: Pairs) -> Pairs:
        height, width, _ = self._place.shape
        if not (height and width):
            return np.full((len(rows), 2), -1, np.int64)
        inside = (rows < height) & (views < width)
        found: Pairs = np.where(inside[:, None], self._place[np.where(inside, rows, 0), np.where(inside, views, 0)], -1)
        return found

    def _round(self, activations: Tensor) -> Tensor:
        if self._dtype is torch.float16:  # values beyond its range would come back infinite
            activations = activations.clamp(-65504, 65504)
        return activations.to(self._dtype).float()

    @torch.no_grad()
    def _compute(self, cut: int, rows: Pairs, views: Pairs) -> Tensor:
        self.net.eval()
        if cut == 0:  # normalising is done image by image
            return self.net.prefix(self._inputs(rows, views), 0)
        source, place = self._source(cut, rows, views)
        parts = []
        for start in range(0, len(rows), _CHUNK):
            chunk = np.arange(start, start + _CHUNK)
            chunk[chunk >= len(rows)] = start
            if source:
                activations = self._read(source, place[chunk])
            else:
                activations = self.net.prefix(self._inputs(rows[chunk], views[chunk]), 0)
            for block in range(source, cut):
                activations = self._round(self.net.between(activations, block, block + 1))
            parts.append(activations[: len(rows) - start])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _source(self, cut: int, rows: Pairs, views: Pairs) -> tuple[int, Pairs]:
        """The deepest cut before `cut` at which all these pairs are stored, 0 if none is; and where they lie there."""
        place = self._places(rows, views)
        shards = [int(shard) for shard in np.unique(place[:, 0])]
        if min(shards) < 0:
            return 0, place
        return max((c for c in range(1, cut) if all(self._opened(c, s) for s in shards)), default=0), place

    def _read(self, cut: int, place: Pairs) -> Tensor:
        device = self.net.mean.device
        shards = np.unique(place[:, 0])
        parts, order = [], []
        for shard in shards:
            mine = np.flatnonzero(place[:, 0] == shard)
            positions = place[mine, 1]
            resident = self._on_device(cut, int(shard))
            if resident is not None:
                parts.append(resident[torch.from_numpy(positions).to(device)])
            else:
                parts.append(torch.from_numpy(self._open[cut, int(shard)][positions]).to(device))
            order.append(mine)
        stored = parts[0]
        if len(parts) > 1:
            stored = torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(order))).to(device)]
        return stored.view(self._dtype).float().permute(0, 3, 1, 2)

    def _on_device(self, cut: int, shard: int) -> Tensor | None:
        """A whole shard on the network's device, where that has room; the least recently used ones make room."""
        found = self._resident.pop((cut, shard), None)
        if found is None:
            size = self._open[cut, shard].nbytes
            if size > self._device_bytes:
                return None
            while sum(t.nbytes for t in self._resident.values()) + size > self._device_bytes:
                del self._resident[next(iter(self._resident))]
            try:
                found = torch.from_numpy(np.array(self._open[cut, shard])).to(self.net.mean.device)
            except torch.OutOfMemoryError:  # another process took the memory: the file is there
                self._device_bytes = 0
                self._resident.clear()
                return None
        self._resident[cut, shard] = found
        return found

    def _path(self, cut: int, shard: int) -> Path:
        return self._folder / f"cut{cut}-{shard}.npy"

    def _opened(self, cut: int, shard: int) -> bool:
        """Whether the shard is stored, by this process or another; marks it as used, now and then.

        One that was removed to make room is closed: the disk gets its blocks back once no process has it mapped.
        """
        key, path, now = (cut, shard), self._path(cut, shard), time.monotonic()
        if key in self._open and now - self._marked[key] >= _MARK_SECONDS:
            self._marked[key] = now
            if not _mark_used(path):
                self._let_go(key)
        if key not in self._open:
            found = from_cache(path, map_array, self._on_note)
            if found is None:
                return False
            _mark_used(path)
            self._open[key], self._marked[key] = found, now
        return True

    def _let_go(self, key: tuple[int, int]) -> None:
        del self._open[key]
        self._resident.pop(key, None)

    def _store(self, cut: int, shard: int) -> bool:
        """Make sure that the shard is stored; False where it is not to be, or cannot be."""
        if self._opened(cut, shard):
            return True
        pairs = self._shards[shard]
        try:
            choice = self._choice(cut)
            if choice is None or not choice.stored:
                self._computed.add(cut)
                return False
            # One lock a shard: two processes may fill different ones at the same time.
            with FileLock(self._path(cut, shard).with_suffix(".lock")):
                if not self._opened(cut, shard):
                    _make_room(self._root, choice.bytes * len(pairs) // self._pairs, self._capacity)
                    for other in [key for key in self._open if not self._path(*key).exists()]:
                        self._let_go(other)
                    chunks = (pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK))
                    arrays = (_pack(self._compute(cut, c[:, 0], c[:, 1]), self._dtype) for c in chunks)
                    write_array(self._path(cut, shard), arrays, len(pairs))
            if not self._opened(cut, shard):
                raise OSError(0, "what was written cannot be read back")
        except OSError as error:
            self._skip(cut, f"could not be stored: {error.strerror or error}")
            return False
        return True

    @property
    def _pairs(self) -> int:
        return sum(map(len, self._shards))

    def _skip(self, cut: int, reason: str) -> None:
        self._computed.add(cut)
        self.decisions[cut] = f"computed: {reason}"
        self._on_note(f"activations at cut {cut} are computed in every epoch: {reason}")

    def _choice(self, cut: int) -> CutChoice | None:
        """What was chosen for a cut by whichever process came first to it; None where it can never fit."""
        channels, height, width = self.shape(cut)
        size = self._pairs * channels * height * width * self._dtype.itemsize
        if size > self._capacity:
            self._skip(cut, f"{size / 1e9:.2f} GB, more than the cache of {self._capacity / 1e9:.2f} GB")
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / "choices.lock"):
            choice = load_choices(self._folder).get(cut)
            if choice is None:
                choice = self._measured(cut, size)
                save_choice(self._folder, choice)
        self.decisions[cut] = str(choice)
        return choice

    def _measured(self, cut: int, size: int) -> CutChoice:
        pairs = max(self._shards, key=len)
        pairs = pairs[np.arange(_CHUNK) % len(pairs)]
        source, _ = self._source(cut, pairs[:, 0], pairs[:, 1])
        if not self._measure:
            return CutChoice(cut, True, size, float("nan"), float("nan"), source)
        stored = _pack(self._compute(cut, pairs[:, 0], pairs[:, 1]), self._dtype)
        order, device = np.arange(_CHUNK)[::-1], self.net.mean.device
        compute = measured(lambda: self._compute(cut, pairs[:, 0], pairs[:, 1]))
        read = measured(lambda: torch.from_numpy(stored[order]).to(device).view(self._dtype).float())
        return choose_cut(
            cut,
            source,
            size=size,
            pairs=self._pairs,
            compute=compute / _CHUNK,
            read=read / _CHUNK,
            available=available_memory() // 2,
        )


def _free_on_device(device: torch.device) -> int:
    free: Any = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return int(free) // 2


def _pack(activations: Tensor, dtype: torch.dtype) -> NDArray[np.signedinteger]:
    """(B, C, H, W) as the integers (B, H, W, C) of the bits of `dtype`."""
    packed = activations.to(dtype).permute(0, 2, 3, 1).contiguous().cpu()
    array: NDArray[np.signedinteger] = packed.view(_INTEGERS[dtype.itemsize][1]).numpy()
    return array


def _mark_used(path: Path) -> bool:
    """Note that a file was used now, for `_make_room`; False where it is no longer there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # not ours to touch: it is used as it is
        return True
    return True


def _make_room(folder: Path, size: int, capacity: int) -> None:
    """Remove the least recently used files under `folder` until `size` more bytes fit into `capacity`."""
    found = []
    for file in (*folder.glob("*/cut*.npy"), *folder.glob("*/head-*.safetensors")):
        try:
            found.append((file.stat().st_mtime, file.stat().st_size, file))
        except FileNotFoundError:  # another process made room at the same time
            continue
    in_use = sum(bytes_ for _, bytes_, _ in found)
    for _, bytes_, file in sorted(found):
        if in_use + size <= capacity:
            break
        in_use -= bytes_
        file.unlink(missing_ok=True)  # a process that has it mapped keeps its pages
