"""predictions.csv: a row an image, written as the images stream past; means are kept, rows are not."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from explain.subject import MEASURED, BatchExplanation, Subject, measure
from search.explain.annotations import Annotation

__all__ = ["PredictionTable", "number"]


def number(value: float) -> str:
    """A number as tables hold it: six significant digits, empty for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"


class PredictionTable:
    """Writes rows and keeps sums.

    Args:
        file: open text file.
        subject: the model.
        method: whose measures are written.
        blocks: labels of the blocks where it draws a map.
        labelled: whether a true class is known for any image; adds the column `label`.
    """

    def __init__(self, file: IO[str], subject: Subject, method: str, blocks: Sequence[str], *, labelled: bool) -> None:
        self._subject, self._method, self._labelled = subject, method, labelled
        self._blocks = tuple(blocks)
        self._writer = csv.writer(file, lineterminator="\n")
        measured = [f"{method}.{block}.{column}" for block in blocks for column in MEASURED]
        header = ["path", "class", "probability", "second class", "margin", *(["label"] if labelled else []), *measured]
        self._writer.writerow(header)
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
            self._writer.writerow(
                [
                    str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
                    classes[first],
                    number(p),
                    classes[second],
                    number(p - q),
                    *([label or ""] if self._labelled else []),
                    *map(number, values),
                ]
            )
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
