"""Images for `benchmarks.localisation`: magnetic tiles grouped by tile, and test sets with the truth beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.real_images import DATA
from search.settings.compose import compose_settings
from search.trial.preparation import load, split

_TILE_GAP = 150
_BOX = ("xmin", "ymin", "xmax", "ymax")


def grouped_by_tile(table: Path) -> None:
    """Write a manifest of the magnetic tiles with the tile as group, and their masks.

    A tile was photographed under six exposures one after the other, and these exposures are the groups of the
    published set: kept together by exposure, pictures of one crack are in training and test alike. Neighbours in the
    numbering of the pictures, at most 150 apart, are taken as one tile; that joins tiles now and then, and parts few.
    """
    with (DATA / "magnetic_tile" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: _number(row["path"]))
    tiles = [0]
    for before, after in pairwise(rows):
        tiles.append(tiles[-1] + (_number(after["path"]) - _number(before["path"]) > _TILE_GAP))
    folder = (DATA / "magnetic_tile").resolve()
    table.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        (folder / row["path"], row["label"], f"tile{tile}", folder / row["mask"] if row["mask"] else "")
        for row, tile in zip(rows, tiles, strict=True)
    ]
    _write(table, ("path", "label", "group", "mask"), lines)


def test_set(folder: Path, arguments: Sequence[str], truth: str, most: int) -> None:
    """Write what `python -m explain` needs to judge a model on images it was not trained on.

    Args:
        folder: receives links to test images in images/, boxes.csv or masks.csv, and train.csv: the images that the
            model was trained on, to train heads for CAM.
        arguments: of the search.
        truth: boxes or masks.
        most: test images taken, at random.
    """
    settings = compose_settings(arguments)
    index = load(settings, Console(quiet=True)).index
    splits = split(settings, index)
    source = DATA / ("neu" if truth == "boxes" else "magnetic_tile")
    known: dict[Path, list[Sequence[object]]] = {}
    with (source / ("boxes.csv" if truth == "boxes" else "manifest.csv")).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if truth == "boxes" or row["mask"]:
                cells = [row[c] for c in _BOX] if truth == "boxes" else [(source / row["mask"]).resolve()]
                known.setdefault((source / row["path"]).resolve(), []).append(cells)
    usable = [place for place in splits.test if index.records[place].path.resolve() in known]
    chosen = np.sort(np.random.default_rng(0).permutation(usable)[:most])
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines: list[Sequence[object]] = []
    for record in (index.records[place] for place in chosen):
        path = record.path.resolve()
        link = folder / "images" / f"{record.label}_{path.name}"
        if not link.is_symlink():
            link.symlink_to(path)
        lines.extend([f"images/{link.name}", record.label, *cells] for cells in known[path])
    _write(folder / f"{truth}.csv", ("path", "label", *(_BOX if truth == "boxes" else ("mask",))), lines)
    fold = splits.folds[0]
    trained = [*fold.train, *(fold.val if settings.search.refit else ())]
    records = [index.records[place] for place in sorted(trained)]
    _write(folder / "train.csv", ("path", "label"), [(record.path.resolve(), record.label) for record in records])


def _number(path: str) -> int:
    return int(Path(path).stem.rsplit("_", 1)[1])


def _write(table: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
