"""Activations on disk: one array a file, complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.whole_file import whole_file

__all__ = ["PRECISIONS", "make_room", "mark_used", "open_activations", "pack", "write_activations"]

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# NumPy has no bfloat16, so every precision is stored as the integers of its bits.
_INTEGERS = {2: (np.dtype(np.int16), torch.int16), 4: (np.dtype(np.int32), torch.int32)}


def pack(activations: Tensor, dtype: torch.dtype) -> NDArray[np.signedinteger]:
    """(B, C, H, W) as the integers (B, H, W, C) of the bits of `dtype`."""
    packed = activations.to(dtype).permute(0, 2, 3, 1).contiguous().cpu()
    array: NDArray[np.signedinteger] = packed.view(_INTEGERS[dtype.itemsize][1]).numpy()
    return array


def open_activations(path: Path, rows: int, dtype: torch.dtype) -> NDArray[np.signedinteger] | None:
    """The memory map of a file, marked as used now; None where it is missing, damaged or of another kind."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    mark_used(path)
    kind = found.ndim == 4 and len(found) == rows and found.dtype == _INTEGERS[dtype.itemsize][0]
    return found if kind else None


def mark_used(path: Path) -> bool:
    """Note that a file was used now, for `make_room`; False where it is no longer there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # not ours to touch: it is used as it is
        return True
    return True


def write_activations(path: Path, arrays: Iterable[NDArray[np.signedinteger]], rows: int) -> None:
    """Write arrays one after the other as one of `rows` rows; the file is whole or not there.

    The caller holds a lock on `path`.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    # Written as a stream: on a full disk a write raises, where touching a memory map would kill the process.
    with whole_file(path) as temporary, temporary.open("wb") as file:
        first = True
        for array in arrays:
            if first:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": (rows, *array.shape[1:])}
                np.lib.format.write_array_header_2_0(file, header)
                first = False
            file.write(array.tobytes())
        file.flush()
        os.fsync(file.fileno())


def make_room(folder: Path, size: int, capacity: int) -> None:
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
