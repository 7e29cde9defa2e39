"""Tables of one run: predictions.csv, a row an image while the images stream past, and localisation.csv."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from explain.localisation import CONTROL, LocalisationRow
from explain.subject import MEASURED, BatchExplanation, Subject, measure
from search.command_line.csv_table import TableWriter
from search.explain.annotations import Annotation

__all__ = ["PredictionTable", "print_localisation", "write_localisation"]

_INTERVALS = ("energy", "pointing", "random_energy", "random_pointing", "over_control", "over_chance", "over_random")
_ENDS = ("", "_low", "_high")
_SHOWN = {
    "energy": "energy inside",
    "over_chance": "over chance",
    "over_random": "over random weights",
    "over_control": "over activation",
}


def _number(value: float) -> str:
    """A number as tables hold it: six significant digits, empty for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"


class PredictionTable:
    """Writes rows and keeps sums.

    Args:
        method: whose measures are written.
        blocks: labels of the blocks where it draws a map.
        labelled: whether a true class is known for any image; adds the column `label`.
    """

    def __init__(self, file: IO[str], subject: Subject, method: str, blocks: Sequence[str], *, labelled: bool) -> None:
        self._subject, self._method, self._labelled = subject, method, labelled
        self._blocks = tuple(blocks)
        self._writer = TableWriter(file)
        measured = [f"{method}.{block}.{column}" for block in blocks for column in MEASURED]
        header = ["path", "class", "probability", "second class", "margin", *(["label"] if labelled else []), *measured]
        self._writer.write_row(header)
        self._sums = {(block, column): [0.0, 0.0] for block in blocks for column in MEASURED}
        self._probabilities = [[0, 0.0] for _ in subject.classes]
        self.images = 0
        self.right, self.judged = 0, 0

    def add(self, paths: Sequence[Path], batch: BatchExplanation, annotations: Sequence[Annotation | None]) -> None:
        """Write the rows of N images."""
        classes = self._subject.classes
        top = batch.probabilities.topk(2, dim=1)
        by_block = {block: measure(batch.maps[self._method, block]) for block in self._blocks}
        for place, path in enumerate(paths):
            (first, second), (p, q) = top.indices[place].tolist(), top.values[place].tolist()
            label = annotation.label if (annotation := annotations[place]) is not None else None
            values = [by_block[block][column][place] for block, column in self._sums]
            answer = (classes[first], _number(p), classes[second], _number(p - q))
            known = [label or ""] if self._labelled else []
            self._writer.write_row([path, *answer, *known, *map(_number, values)])
            for total, value in zip(self._sums.values(), values, strict=True):
                if not math.isnan(value):
                    total[0] += value
                    total[1] += 1
            self._probabilities[first][0] += 1
            self._probabilities[first][1] += p
            if label in classes:
                self.judged += 1
                self.right += label == classes[first]
        self.images += len(paths)

    @property
    def measures(self) -> Mapping[str, Mapping[str, float]]:
        """Block -> column -> mean over the images where it is defined, NaN where it never was."""
        means = {key: total / count if count else math.nan for key, (total, count) in self._sums.items()}
        return {block: {column: means[block, column] for column in MEASURED} for block in self._blocks}

    @property
    def by_class(self) -> Mapping[str, tuple[int, float]]:
        """Class -> images predicted as it and the mean of their probabilities, NaN without images."""
        return {
            name: (int(count), total / count if count else math.nan)
            for name, (count, total) in zip(self._subject.classes, self._probabilities, strict=True)
        }


def write_localisation(path: Path, rows: Sequence[LocalisationRow]) -> None:
    """Write a row by block and method; three columns an interval: mean, _low, _high."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = TableWriter(file)
        writer.write_row(["block", "method", "images", "dead", *(f"{c}{e}" for c in _INTERVALS for e in _ENDS)])
        for row in rows:
            intervals = [_number(value) for column in _INTERVALS for value in getattr(row, column)]
            writer.write_row([row.block, row.method, row.images, _number(row.dead), *intervals])


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
