"""What `python -m search.predict` does: images are read in threads, predicted in batches, written as rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lightning_modules.decisions.conformal import BY_HAND
from lightning_modules.decisions.costs import read_costs
from lightning_modules.errors import BadImages, InputError, Problem, printable
from lightning_modules.images.decoding import stream
from lightning_modules.images.value_range import shows_nothing
from lightning_modules.networks.model_file import (
    Answers,
    DecisionRule,
    Outlier,
    OutlierRule,
    Parts,
    TrainedModel,
    by_hand_instead,
)
from search.command_line.csv_table import TableWriter
from search.predict.arguments import Arguments
from search.predict.image_list import ImageList, ListedFile
from search.predict.new_files import map_name, new_maps, new_table
from search.words import class_counts

if TYPE_CHECKING:
    from search.predict.maps import MapDrawer

__all__ = ["DOUBTFUL", "Predicted", "predict_images"]

DOUBTFUL = 0.6
"""Probability of the predicted class below which another one may well be right."""

_MOST_PROBLEMS = 20
_TILE = ("top", "left", "height", "width")  # in pixels of the image
_UNKNOWN = ("unknown", "distance", "nearest")
_NOT_FINITE = "the network's output is not a finite number"

Read = tuple[ListedFile, Parts | str]


@dataclass(frozen=True)
class Predicted:
    """How many images were predicted; of them show nothing, are to be looked at by hand (None without coverage= or
    costs=), and are unlike anything in training (None without unknown=); and how many were set aside.

    Attributes:
        by_class: images of each class that was predicted, in the order of the model's classes.
        doubtful: those with a probability below `DOUBTFUL`.
    """

    images: int
    by_class: dict[str, int]
    doubtful: int
    flat: int
    by_hand: int | None
    unknown: int | None
    set_aside: int

    def summary(self) -> tuple[str, str]:
        """Images by class, and how many somebody should look at, as lines for people."""
        by_class = f"By class: {class_counts(self.by_class)}."
        if self.by_hand is not None:
            return by_class, f"By hand: {self.by_hand} of {self.images} images (column decision)."
        doubtful = f"Doubtful: {self.doubtful} of {self.images} images, with a probability below {DOUBTFUL:g}"
        return by_class, f"{doubtful}; coverage=0.95 leaves such images to a person."


def predict_images(model: TrainedModel, images: ImageList, arguments: Arguments) -> Predicted:
    """Predict the images and write the table and the maps.

    Memory depends on the size of a batch, not on the number of images.

    Raises:
        InputError: no such device, a promise that the model cannot give, costs that do not fit it, a place that
            cannot be written, or not one image that can be read.
        BadImages: images that cannot be read, with `on_bad=refuse`; nothing has been written.
    """
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: this machine has no GPU that PyTorch can use; device=cpu or auto")
    cuda = arguments.device != "cpu" and torch.cuda.is_available()
    model.net.to("cuda" if cuda else "cpu").eval()
    drawer = None
    if arguments.maps:
        from search.predict.maps import MapDrawer  # brings matplotlib

        drawer = MapDrawer(model, arguments.maps_method)
    rule = _rule(model, arguments)
    outliers = None if arguments.unknown is None else model.outlier_rule(arguments.unknown)
    refuse = arguments.on_bad == "refuse"
    with (
        new_table(arguments.to, whole=refuse) as file,
        new_maps(arguments.maps_to) as maps,
        _progress(len(images)) as advance,
        closing(_read_all(model, images)) as read,
    ):
        table = _Table(file, model, rule, outliers, drawer, maps, arguments)
        batch: list[Read] = []
        for one in read:
            if refuse and isinstance(one[1], str):
                raise _all_problems(one, read)
            batch.append(one)
            if len(batch) == arguments.batch_size:
                table.add(batch)
                advance(len(batch))
                batch.clear()
        if batch:
            table.add(batch)
        if not table.predicted:
            name, reason = table.first_problem
            first = f"{printable(name)}: {reason}"
            raise InputError(f"none of the {len(images)} images can be predicted; first: {first}")
    by_hand = None if rule is None else table.by_hand
    unknown = None if outliers is None else table.unknown
    return Predicted(table.predicted, table.by_class(), table.doubtful, table.flat, by_hand, unknown, table.set_aside)


def _rule(model: TrainedModel, arguments: Arguments) -> DecisionRule | None:
    if arguments.coverage is not None:
        return model.rule(arguments.coverage)
    if arguments.costs is None:
        return None
    if arguments.costs == Path("model"):
        return model.cost_rule()
    return model.cost_rule(read_costs(arguments.costs, model.card.classes, on_note=partial(print, file=sys.stderr)))


def _read_all(model: TrainedModel, images: ImageList) -> Generator[Read, None, None]:
    yield from stream(partial(_read, model), images)


def _read(model: TrainedModel, listed: ListedFile) -> Read:
    try:
        return listed, model.read_parts(listed.path)
    except BadImages as error:
        return listed, error.problems[0].reason
    except InputError as error:
        return listed, str(error)


def _all_problems(first: Read, rest: Iterator[Read]) -> BadImages:
    """The first problem and those after it: the rest is read to its end, so that one run names all there are."""
    problems = [Problem(printable(first[0].name), str(first[1]))]
    for listed, found in rest:
        if isinstance(found, str):
            problems.append(Problem(printable(listed.name), found))
            if len(problems) == _MOST_PROBLEMS:
                break
    return BadImages(problems, "the images (on_bad=refuse; on_bad=set_aside gives each a row with its reason)")


class _Table:
    """Predicts batches and writes their rows and maps."""

    def __init__(
        self,
        file: IO[str],
        model: TrainedModel,
        rule: DecisionRule | None,
        outliers: OutlierRule | None,
        drawer: MapDrawer | None,
        maps: Path | None,
        arguments: Arguments,
    ) -> None:
        self._model, self._rule, self._drawer, self._maps, self._arguments = model, rule, drawer, maps, arguments
        self._outliers = outliers
        self._classes = model.card.classes
        self._errors = arguments.on_bad == "set_aside"
        self._writer = TableWriter(file)
        self._tiled = model.card.tiling is not None
        tile = [f"tile.{name}" for name in _TILE] if self._tiled else []
        self._decision = (*(rule.columns if rule else ()), *(_UNKNOWN if outliers else ()))
        decision = self._decision
        optional = [*decision, *tile, *(["map"] if drawer else []), *(["error"] if self._errors else [])]
        self._writer.write_row(
            ["path", "class", "probability", "margin", *optional, *(f"probability.{name}" for name in self._classes)]
        )
        self.predicted = self.flat = self.set_aside = self.by_hand = self.unknown = self.doubtful = 0
        self._counts = [0] * len(self._classes)
        self.first_problem = ("", "")

    def by_class(self) -> dict[str, int]:
        """Images by predicted class."""
        return {name: count for name, count in zip(self._classes, self._counts, strict=True) if count}

    def add(self, batch: list[Read]) -> None:
        """Predict N images and write their rows.

        Raises:
            BadImages: an output that is not finite, with `on_bad=refuse`.
        """
        images = [found for _, found in batch if isinstance(found, Parts)]
        answers = self._model.answers(images, self._arguments.batch_size) if images else None
        self.flat += sum(bool(shows_nothing(found.pixels).all()) for found in images)
        drawn = self._drawer.overlays(answers.shown) if self._drawer is not None and answers is not None else None
        decided = self._rule.decide(answers) if self._rule is not None and answers is not None else None
        outliers = None
        if self._outliers is not None and answers is not None:
            outliers = self._outliers.judge(answers, self._arguments.batch_size)
        rows = iter(range(len(images)))
        for listed, found in batch:
            if isinstance(found, str):
                self._write_problem(listed, found)
                continue
            row = next(rows)
            if answers is None or not answers.probabilities[row].isfinite().all():
                self._write_problem(listed, _NOT_FINITE)
                continue
            place = ""
            if drawn is not None and self._maps is not None and self._arguments.maps_to is not None:
                name = map_name(self.predicted + self.set_aside + 1, listed.path)
                drawn[row].save(self._maps / name)
                place = str(self._arguments.maps_to / name)
            outlier = None if outliers is None else outliers[row]
            self._write(listed, answers, row, place, () if decided is None else decided[row], outlier)

    def _write(
        self,
        listed: ListedFile,
        answers: Answers,
        row: int,
        place: str,
        decided: tuple[Any, ...],
        outlier: Outlier | None,
    ) -> None:
        probabilities = answers.probabilities[row]
        top = probabilities.topk(min(2, len(probabilities)))
        margin = top.values[0] - top.values[-1] if len(top.values) > 1 else top.values[0]
        tile = [str(number) for number in answers.boxes[row].tolist()] if self._tiled else []
        if self._rule is not None and outlier is not None and outlier.unknown:
            decided = by_hand_instead(self._rule, decided)
        self.by_hand += BY_HAND in decided
        if outlier is not None:
            self.unknown += outlier.unknown
            decided = (*decided, "yes" if outlier.unknown else "no", np.float32(outlier.distance), outlier.nearest)
        decision = [
            json.dumps(one, ensure_ascii=False) if isinstance(one, list) else "" if one is None else str(one)
            for one in decided
        ]
        optional = [*decision, *tile, *([place] if self._drawer else []), *([""] if self._errors else [])]
        numbers = _numbers(torch.stack([top.values[0], margin]))
        answer = (listed.name, self._classes[top.indices[0]], *numbers)
        self._writer.write_row([*answer, *optional, *_numbers(probabilities)])
        self.predicted += 1
        self._counts[int(top.indices[0])] += 1
        self.doubtful += bool(top.values[0] < DOUBTFUL)

    def _write_problem(self, listed: ListedFile, reason: str) -> None:
        if not self._errors:
            raise BadImages([Problem(printable(listed.name), reason)])
        if not self.set_aside:
            self.first_problem = (listed.name, reason)
        tile = [""] * len(_TILE) if self._tiled else []
        optional = [*("" for _ in self._decision), *tile, *([""] if self._drawer else []), reason]
        self._writer.write_row([listed.name, "", "", "", *optional, *("" for _ in self._classes)])
        self.set_aside += 1


def _numbers(values: Tensor) -> list[str]:
    """The shortest decimals that read back as the same float32."""
    return [str(value) for value in values.numpy()]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    console = Console(file=sys.stderr)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)
