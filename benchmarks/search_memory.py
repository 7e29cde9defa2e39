"""Memory of a search at 224 x 224 pixels: `python -m benchmarks.search_memory [IMAGES ...]`.

A whole search through the command line: evidence, a trial with nothing frozen beside another one, refit, report; two
trials of one epoch, since memory depends on neither number. The images are noise, drawn at 256 x 256: it does not
depend on what they show either.

Of every process it samples, twice a second, what the kernel says (proc(5), `smaps_rollup`):

- anonymous: memory of its own, which nothing but ending the process gives back. The goals are set for this.
- proportional (PSS): that, and its share of the files it has mapped (pixels, activations, libraries).
- resident (RSS): that, with every mapped page counted in full in each process. The pages of files are the system's to
  take back, and the cache of activations has 4 GB of them at most (`trainer.cache_gigabytes`).

Rows go to benchmarks/results/search_memory.json; those of other numbers of images stay.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.results_file import read_rows, write_rows

_CLASSES, _SIDE = 4, 256
_KINDS = {"Pss": "proportional", "Rss": "resident", "Anonymous": "anonymous"}
GOALS = {1_000: 4.0, 10_000: 6.0}
"""Images -> most anonymous memory of any process, in GB."""


@dataclass
class Peak:
    """Most memory of a process in GB, by kind."""

    proportional: float = 0.0
    resident: float = 0.0
    anonymous: float = 0.0


def make_images(folder: Path, count: int) -> None:
    """Noise in four classes, as JPEG."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class{number % _CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8))
        coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(place / f"{number:06d}.jpg")


def sample(root: int, peaks: dict[int, Peak]) -> None:
    """Raise the peaks of the process `root` and of all that descend from it."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
            children[parent].append(int(entry.name))
    waiting = [root]
    while waiting:
        process = waiting.pop()
        waiting += children[process]
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        found = {name: int(rest.split()[0]) * 1024 / 1e9 for name, _, rest in (line.partition(":") for line in lines)}
        peak = peaks[process]
        for key, kind in _KINDS.items():
            setattr(peak, kind, max(getattr(peak, kind), found.get(key, 0.0)))


def measure(count: int) -> tuple[dict[str, Peak], float]:
    """(driver and largest worker -> its peak, seconds) of a search over that many images.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images", count)
        command = [
            sys.executable, "-m", "search", "data=folder", f"data.path={folder / 'images'}", "data.size=[224,224]",
            "data.fit=stretch", "search.trials=2", "search.pruner=none", "trainer.epochs=1",
            "space.default_freeze_depth=0", f"tracking.root={folder / 'mlruns'}",
        ]  # fmt: skip
        peaks: dict[int, Peak] = defaultdict(Peak)
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ))  # noqa: S603
        while process.poll() is None:
            sample(process.pid, peaks)
            time.sleep(0.5)
        seconds = time.perf_counter() - started
        if process.wait():
            raise SystemExit(f"the search over {count} images failed")
    driver = peaks.pop(process.pid)
    largest = max(peaks.values(), key=lambda peak: peak.anonymous, default=Peak())
    return {"driver": driver, "largest worker": largest}, seconds


def main(arguments: list[str]) -> int:
    """Measure, print, write; exit status 1 if a goal is missed."""
    rows = read_rows("search_memory")
    table = Table("images", "process", "anonymous, GB", "proportional, GB", "resident, GB", "goal, GB", "minutes")
    missed = False
    for count in [int(a) for a in arguments] or list(GOALS):
        found, seconds = measure(count)
        goal = GOALS.get(count)
        rows = [row for row in rows if not row["what"].endswith(f" {count} images")]
        for process, peak in found.items():
            table.add_row(
                f"{count:,}", process, f"{peak.anonymous:.2f}", f"{peak.proportional:.2f}", f"{peak.resident:.2f}",
                "" if goal is None else f"{goal:g}", f"{seconds / 60:.0f}",
            )  # fmt: skip
            missed = missed or (goal is not None and peak.anonymous > goal)
            rows += [
                {
                    "what": f"peak {kind} memory of the {process}, {count} images",
                    "value": round(getattr(peak, kind), 3),
                    "unit": "GB",
                    "goal": goal if kind == "anonymous" else None,
                    "better": "lower",
                }
                for kind in ("anonymous", "proportional", "resident")
            ]
        write_rows("search_memory", rows)
    Console().print(table)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
