"""Which cuts are worth keeping: measured once a cut, decided by arithmetic, remembered.

The first blocks are cheap to run and huge to store; the last ones are the opposite. What is stored must be computed
anyway at that moment, so a cut is worth storing if writing and reading an image's activations once takes less time
than computing them a second time.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_modules.whole_file import whole_file

__all__ = ["CutChoice", "available_memory", "choose_cut", "load_choices", "measured", "save_choice"]

# Reading back at the speed of a plain disk what no longer fits into memory; within memory, the measured copy counts.
_DISK_BYTES_PER_SECOND = 500e6


@dataclass(frozen=True)
class CutChoice:
    """What was measured at a cut, and what follows.

    Attributes:
        cut: blocks before it.
        stored: whether its activations are kept.
        bytes: of the whole file.
        compute_ms: per image, from the nearest shallower cut that is stored (`source`).
        read_ms: per image, copying and widening what is stored.
        source: that shallower cut; 0 is the image itself.
        write_ms: per image, to a plain disk.
    """

    cut: int
    stored: bool
    bytes: int
    compute_ms: float
    read_ms: float
    source: int
    write_ms: float = float("nan")

    def __str__(self) -> str:
        verb, size = "stored" if self.stored else "computed", f"{self.bytes / 1e9:.2f} GB"
        if math.isnan(self.compute_ms):
            return f"{verb}, {size}"
        return (
            f"{verb}, {size}; {self.compute_ms:.2f} ms an image to compute from cut {self.source}, "
            f"{self.write_ms:.2f} to write, {self.read_ms:.2f} to read"
        )


def measured(action: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of some calls, the first of which only warms up."""
    action()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - started)
    return best


def choose_cut(
    cut: int, source: int, *, size: int, pairs: int, compute: float, read: float, available: int
) -> CutChoice:
    """Decide from measurements.

    Args:
        cut: what is decided on.
        source: nearest shallower cut that is stored.
        size: bytes of all files of the cut.
        pairs: (image, view) pairs in them.
        compute: seconds an image to compute from `source`.
        read: seconds an image to copy and widen it.
        available: bytes of memory that files may occupy without being read from disk again.
    """
    disk = size / max(pairs, 1) / _DISK_BYTES_PER_SECOND
    read += disk if size > available else 0.0
    return CutChoice(cut, compute > disk + read, size, 1e3 * compute, 1e3 * read, source, 1e3 * disk)


def load_choices(folder: Path) -> dict[int, CutChoice]:
    """What earlier processes decided for the activations in `folder`; nothing where the file is damaged."""
    try:
        rows = json.loads((folder / "choices.json").read_text())
        return {int(row["cut"]): CutChoice(**row) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def save_choice(folder: Path, choice: CutChoice) -> None:
    """Add a choice to those of `folder`; call it under the folder's lock.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    choices = load_choices(folder) | {choice.cut: choice}
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "choices.json") as temporary:
        temporary.write_text(json.dumps([asdict(c) for _, c in sorted(choices.items())], indent=1))


def available_memory() -> int:
    """Bytes that programs may take without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
