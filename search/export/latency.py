"""How long answers take on this machine, of the model and of the file, as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

__all__ = ["latency", "latency_table"]

BATCHES = (1, 32)
_SECONDS = 1.0  # that each is run for at least, after one run that does not count
_FEWEST = 5


def latency(run: Callable[[NDArray[np.uint8]], object], image: NDArray[np.uint8], batch: int) -> float:
    """Median milliseconds an image of a batch of that many copies of an image (1, H, W, 3)."""
    images = np.repeat(image, batch, axis=0)
    run(images)
    found: list[float] = []
    while len(found) < _FEWEST or sum(found) < _SECONDS:
        started = time.perf_counter()
        run(images)
        found.append(time.perf_counter() - started)
    return 1000 * median(found) / batch


def latency_table(runs: Mapping[str, Mapping[int, float]], threads: int) -> Table:
    """Name -> batch -> milliseconds an image, as a table."""
    word = "thread" if threads == 1 else "threads"
    table = Table(title=f"Median milliseconds an image on this machine's CPU, {threads} {word}", title_justify="left")
    table.add_column("what")
    for batch in BATCHES:
        table.add_column(f"batch of {batch}", justify="right")
    for name, found in runs.items():
        table.add_row(name, *(f"{found[batch]:.1f}" for batch in BATCHES))
    return table
