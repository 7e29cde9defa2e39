"""A planted shortcut: a mark in a corner goes with the class in training and validation, and with none in the test.

Each picture of NEU carries a mark of 16 x 16 pixels in its upper left corner: white bars on black, of another direction
or width for each class. `MARKED` pictures of each class, drawn by the split, carry their own class's mark: training and
validation images are of these. All others carry that of a class drawn at random, and are the test. No validation score
can tell a trial that looks at the mark from one that looks at the defect.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.real_images import DATA

if TYPE_CHECKING:
    from lightning_modules.images.splits import Splits
    from lightning_modules.images.store import ImageSet
    from search.settings.schema import Settings

__all__ = ["MARK", "SHORTCUT", "mark", "shortcut_data", "write_shortcut"]

SHORTCUT = "shortcut"
MARKED = 20  # pictures of each class whose mark is right: half of them for validation
MARK = 16  # pixels of the picture that is shown
SIDE = 96


def mark(number: int) -> NDArray[np.uint8]:
    """(16, 16) grey levels of the mark of class `number`: bars across, along or aslant, of two widths."""
    row, column = np.indices((MARK, MARK))
    along = (row, column, row + column)[number % 3]
    width = (2, 4)[number // 3 % 2]
    return np.where(along // width % 2 == 0, 255, 0).astype(np.uint8)


def write_shortcut(folder: Path, split: int) -> Path:
    """Write the pictures of one split and a manifest with its parts, once; returns the manifest."""
    made = folder / SHORTCUT / str(split)
    manifest = made / "manifest.csv"
    if manifest.exists():
        return manifest
    with (DATA / "neu" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    rng = np.random.default_rng([split, 21])
    made.mkdir(parents=True, exist_ok=True)
    lines, marked = [], dict.fromkeys(classes, 0)
    for number in rng.permutation(len(rows)):
        row = rows[number]
        label = classes.index(row["label"])
        place = marked[row["label"]]
        marked[row["label"]] += 1
        part = "test" if place >= MARKED else ("train", "val")[place % 2]
        with Image.open(DATA / "neu" / row["path"]) as image:
            grey = np.array(image.convert("L").resize((SIDE, SIDE)))
        grey[:MARK, :MARK] = mark(label if part != "test" else int(rng.integers(len(classes))))
        name = f"{number:05d}.png"
        Image.fromarray(grey).save(made / name)
        lines.append((name, row["label"], part))
    temporary = manifest.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        writer.writerows(lines)
    temporary.replace(manifest)
    return manifest


def shortcut_data(split: int, *more: str) -> tuple[Settings, ImageSet, Splits]:
    """Settings, images and splits of one split; see `depth_tables.table_data`."""
    from rich.console import Console

    from benchmarks.depth_tables import CACHE
    from search.settings.compose import compose_settings
    from search.trial.preparation import load
    from search.trial.preparation import split as split_images

    manifest = write_shortcut(CACHE, split)
    # Shifted views would move the mark out of the picture; mirrored ones leave it in a corner.
    own = ("data=manifest", f"data.path={manifest}", "data.size=[96,96]", "data.fit=stretch", "data.shift=0")
    settings = compose_settings([*own, f"seed={split}", f"tracking.root={CACHE}", *more])
    images = load(settings, Console(quiet=True))
    return settings, images, split_images(settings, images.index)
