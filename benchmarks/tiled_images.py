"""Whole images against tiles of them at the same input size: `python -m benchmarks.tiled_images [SEED ...]`.

The pictures of magnetic tiles (longer side up to 256, shorter from 91) are shown to EfficientNet-Lite0 at 64 x 64
pixels, once resized whole and once cut into tiles of 88 pixels: labels come from the masks, `free` is the normal class.
Both are searches of one trial, the default configuration, on the same images and splits: pictures of one magnetic tile
are on one side of every split (`grouped_by_tile`), and both are scored by image. Four images whose masks mark nothing
are left out. Writes benchmarks/results/tiled_images.json, keeping the rows of seeds that were not run; studies continue
where they stopped.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.localisation_data import grouped_by_tile
from benchmarks.real_images import refusal
from benchmarks.results_file import read_rows, write_rows
from benchmarks.whole_search import whole_search
from lightning_modules.images.mask_file import defect_pixels

SEEDS = (0, 1)
_SHARED = (
    "data=manifest",
    "data.path={made}/marked.csv",
    "data.outside=allow",
    "data.size=[64,64]",
    "data.max_train_per_class=30",
    "trainer.epochs=6",
    "trainer.class_weights=balanced",
    "search.trials=1",
    "search.evidence=false",
    "executor=inline",
    "executor.threads=1",
    "tracking.report=false",
)
WAYS = {"whole": (), "tiles": ("data.tile=88", "data.normal=free")}


def run(way: str, seed: int, root: Path) -> dict[str, Any]:
    """One search; returns its winner as the study recorded it."""
    made = root / "benchmarks"
    if not (made / "marked.csv").exists():
        _marked_images(made)
    arguments = [*(a.format(made=made) for a in _SHARED), *WAYS[way], f"seed={seed}"]
    winner, seconds = whole_search(f"tiled-images-{way}-{seed}", arguments, root)
    return {
        "way": way,
        "seed": seed,
        "test": winner.test,
        "intervals": winner.intervals,
        "images": winner.images,
        "validation": winner.value,
        "seconds": seconds,
        "command": " ".join(arguments),
    }


def _marked_images(folder: Path) -> None:
    """Write the grouped manifest without the four images of defects whose masks mark no pixel."""
    grouped_by_tile(folder / "tiles.csv")
    with (folder / "tiles.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    place = header.index("mask")
    marked = [row for row in rows if not row[place] or defect_pixels(Path(row[place])).any()]
    with (folder / "marked.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *marked])


def main(words: list[str]) -> int:
    """Run the seeds given, or all; prints both ways and the ratio of their seconds."""
    if why := refusal(words, [str(seed) for seed in SEEDS]):
        print(f"tiled_images: {why}", file=sys.stderr)
        return 2
    rows = read_rows("tiled_images")
    for seed in map(int, words or SEEDS):
        for way in WAYS:
            row = run(way, seed, Path("mlruns"))
            rows = [r for r in rows if (r["way"], r["seed"]) != (way, seed)] + [row]
            write_rows("tiled_images", rows)
    table = Table("seed", "images tested", *(f"{way}: macro F1 (95 %)" for way in WAYS), "seconds, tiles / whole")
    ratios = []
    for seed in SEEDS:
        found = {r["way"]: r for r in rows if r["seed"] == seed}
        if len(found) < len(WAYS):
            continue
        ratios.append(found["tiles"]["seconds"] / found["whole"]["seconds"])
        scores = [_with_interval(found[way]) for way in WAYS]
        table.add_row(str(seed), str(found["whole"]["images"][1]), *scores, f"{ratios[-1]:.1f}")
    Console().print(table)
    if ratios:
        print(f"seconds, tiles / whole: {mean(ratios):.1f}")
    return 0


def _with_interval(row: dict[str, Any]) -> str:
    low, high = row["intervals"]["macro_f1"]
    return f"{row['test']['macro_f1']:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
