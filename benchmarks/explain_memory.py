"""Peak memory of `python -m explain` on 10,000 images, as a ratio to that on 100.

`python -m benchmarks.explain_memory`; how it is measured: `benchmarks.peak_memory`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.peak_memory import measure
from benchmarks.results_file import write_rows

GOAL = 1.05


def main() -> int:
    """Measure, print the table, write the row; exit status 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=100, help="images of the short run")
    parser.add_argument("--many", type=int, default=10_000, help="images of the long run")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    options = parser.parse_args()
    table = Table(title=f"python -m explain, EfficientNet-Lite0, {options.size} px, eight blocks")
    for column in ("images", "peak MiB", "seconds"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = measure(
            folder,
            lambda images, model, count: (
                "-m", "explain", f"images={images}", f"model={model}", f"out={folder / f'out{count}'}",
            ),
            (options.few, options.many),
            options.size,
            table,
        )  # fmt: skip
    ratio = measured[1] / measured[0]
    Console().print(table)
    Console().print(f"ratio {ratio:.3f}, goal <= {GOAL:.2f}")
    what = f"peak memory of explaining {options.many} images / of {options.few}"
    row = {"what": what, "value": round(ratio, 3), "unit": "ratio", "goal": GOAL, "better": "lower"}
    write_rows("explain_memory", [row])
    return int(ratio > GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
