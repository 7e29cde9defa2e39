"""Memory of a search against the size of its data: `python -m benchmarks.data_memory [IMAGES ...]`.

Each size is a whole search through the command line (simulated images of 32 x 32, one trial of one epoch with every
block frozen, so that every image is decoded, cached, trained on and scored). Sampled is the process's anonymous memory:
pages of memory-mapped files are the system's to take back. Below 4096 training images the probe's features grow with
the data, so the smaller size is 10,000. Rows go to benchmarks/results/data_memory.json.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.results_file import write_rows


def peak(images: int) -> tuple[float, float]:
    """(largest anonymous memory in MB, seconds) of a search over that many images."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "search", f"data.images={images}", "data.size=[32,32]", "search.trials=1",
            "trainer.epochs=1", "space.freeze_depth=[8,8]", "search.refit=false", "executor=inline",
            f"tracking.root={folder}",
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        most = 0
        while process.poll() is None:
            try:
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
            except FileNotFoundError:
                break
            time.sleep(0.05)
        if process.wait():
            raise SystemExit(f"the search over {images} images failed")
        return most / 1024, time.perf_counter() - started


def main(arguments: list[str]) -> int:
    """Measure, print, write; exit status 1 if a goal is missed."""
    sizes = [int(a) for a in arguments] or [10_000, 100_000]
    table = Table("images", "anonymous memory, MB", "seconds")
    found = {}
    for size in sizes:
        found[size], seconds = peak(size)
        table.add_row(f"{size:,}", f"{found[size]:.0f}", f"{seconds:.0f}")
    ratio = found[sizes[-1]] / found[sizes[0]]
    table.add_row("last / first", f"{ratio:.2f} (goal <= 1.25)", "")
    Console().print(table)
    rows = [
        {
            "what": f"peak anonymous memory, {n} images",
            "value": round(mb, 1),
            "unit": "MB",
            "goal": None,
            "better": "lower",
        }
        for n, mb in found.items()
    ]
    what = f"peak memory, {sizes[-1]} images / {sizes[0]} images"
    rows.append({"what": what, "value": round(ratio, 3), "unit": "ratio", "goal": 1.25, "better": "lower"})
    write_rows("data_memory", rows)
    return int(ratio > 1.25)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
