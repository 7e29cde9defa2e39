"""Peak memory of `python -m search.predict` on 5,000 images, as a ratio to that on 500.

`python -m benchmarks.predict_memory`; how it is measured: `benchmarks.peak_memory`. A third measurement lists 1,000,000
names that lie in one table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.peak_memory import measure
from benchmarks.results_file import write_rows

GOAL = 1.05
_LIST = """
import pathlib, sys
from search.predict.image_list import listed_images
with listed_images(sys.argv[1]) as images:
    count = sum(1 for _ in images)
# Not getrusage, whose maximum begins with the process that started this one.
status = pathlib.Path("/proc/self/status").read_text()
print(count, int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


def listing_peak(folder: Path, count: int) -> float:
    """Largest resident set in MiB of a process that lists so many images and nothing else."""
    table = folder / f"list{count}.csv"
    with table.open("w") as file:
        file.write("path\n")
        file.writelines(f"plates/2019-05/line-3/{number:08d}.png\n" for number in range(count))
    done = subprocess.run([sys.executable, "-c", _LIST, str(table)], capture_output=True, text=True, check=True)  # noqa: S603
    listed, mebibytes = done.stdout.split()
    if int(listed) != count:
        raise SystemExit(f"{listed} images were listed of {count}")
    return float(mebibytes)


def main() -> int:
    """Measure, print the table, write the rows; exit status 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=500, help="images of the short run")
    parser.add_argument("--many", type=int, default=5_000, help="images of the long run")
    parser.add_argument("--listed", type=int, default=1_000_000, help="names of the long list")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    options = parser.parse_args()
    table = Table(title=f"python -m search.predict, EfficientNet-Lite0, {options.size} px")
    for column in ("images", "peak MiB", "seconds"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = measure(
            folder,
            lambda images, model, count: (
                "-m", "search.predict", f"images={images}", f"model={model}", f"to={folder / f'{count}.csv'}",
                "device=cpu",
            ),
            (options.few, options.many),
            options.size,
            table,
        )  # fmt: skip
        lists = [listing_peak(folder, count) for count in (1_000, options.listed)]
        for count, mebibytes in zip((1_000, options.listed), lists, strict=True):
            table.add_row(f"{count:,}, listed only", f"{mebibytes:.0f}", "")
    Console().print(table)
    rows = [
        (f"peak memory of predicting {options.many} images / of {options.few}", measured[1] / measured[0], GOAL),
        (f"peak memory of listing {options.listed} images / of 1000", lists[1] / lists[0], 1.25),
    ]
    write_rows(
        "predict_memory",
        [{"what": w, "value": round(v, 3), "unit": "ratio", "goal": g, "better": "lower"} for w, v, g in rows],
    )
    for what, value, goal in rows:
        Console().print(f"{what}: {value:.3f}, goal <= {goal:.2f}")
    return int(any(value > goal for _, value, goal in rows))


if __name__ == "__main__":
    raise SystemExit(main())
