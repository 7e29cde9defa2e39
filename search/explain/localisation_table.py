"""localisation.csv, and the same on the terminal."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from explain.localisation import CONTROL, LocalisationRow
from search.explain.prediction_table import number

__all__ = ["print_localisation", "write_localisation"]

_INTERVALS = ("energy", "pointing", "random_energy", "random_pointing", "over_control", "over_chance", "over_random")
_ENDS = ("", "_low", "_high")
_SHOWN = {
    "energy": "energy inside",
    "over_chance": "over chance",
    "over_random": "over random weights",
    "over_control": "over activation",
}


def write_localisation(path: Path, rows: Sequence[LocalisationRow]) -> None:
    """Write a row by block and method; three columns an interval: mean, _low, _high."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["block", "method", "images", "dead", *(f"{c}{e}" for c in _INTERVALS for e in _ENDS)])
        for row in rows:
            intervals = [number(value) for column in _INTERVALS for value in getattr(row, column)]
            writer.writerow([row.block, row.method, row.images, number(row.dead), *intervals])


def print_localisation(rows: Sequence[LocalisationRow]) -> None:
    """Show the rows on the terminal."""
    table = Table(title="Share of the map on the defects: means and 95 % intervals over images")
    for column in ("block", "method"):
        table.add_column(column)
    for column in _SHOWN.values():
        table.add_column(column, justify="right")
    for row in rows:
        control = {"over_control"} if row.method == CONTROL else set()
        cells = ("-" if column in control else _cell(getattr(row, column)) for column in _SHOWN)
        table.add_row(row.block, row.method, *map(Text, cells))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _cell(interval: tuple[float, float, float]) -> str:
    if math.isnan(interval[0]):
        return "-"
    return "{:.3f} ({:.3f}..{:.3f})".format(*interval)
