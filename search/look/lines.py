"""What a look says: a fact a line, each with what it means for a search."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterator

import numpy as np

from lightning_modules.errors import printable
from search.look.enough import images_needed, known_as
from search.look.survey import Survey, has_gpu
from search.settings.schema import Settings
from search.words import class_counts

__all__ = ["lines"]

_SHOWN = 5  # problems, and sizes
_SHRUNK = 4.0  # times; beyond that a small defect may be gone
_FEW = 10  # test images of a class, of which nothing can be said alone
_LEAST = 2.0  # minutes: loading, evidence, maps and report
_CORE_SECONDS = (0.1, 0.95)  # of a megapixel that is trained: most blocks frozen, and none


def lines(found: Survey, settings: Settings) -> Iterator[str]:
    """The lines, in the order of reading."""
    index = found.index
    counts = class_counts(index.class_counts(), most=40)
    yield f"Images: {len(index.records)} in {len(index.classes)} classes: {counts}."
    if found.decoded < found.files:
        yield (
            f"  In the time there was, {found.read} of {found.files} files were read and {found.decoded} decoded; what "
            "follows on sizes and copies is of those. A search reads all."
        )
    yield from (f"  {printable(note)}" for note in index.notes)
    if index.set_aside:
        yield f"Cannot be used: {len(index.set_aside)}, such as"
        yield from (f"  {problem}" for problem in index.set_aside[:_SHOWN])
        yield "  A search refuses them, or leaves them out with data.on_bad=set_aside."
    yield from _sizes(found, settings)
    yield from _origin(found)
    yield from _split(found)
    yield from _enough(found)
    yield from _cost(found, settings)


def _sizes(found: Survey, settings: Settings) -> Iterator[str]:
    counts = Counter(record.size for record in found.index.records if record.size is not None)
    if not counts:
        return
    shown = [f"{height} x {width} ({count})" for (height, width), count in counts.most_common(_SHOWN)]
    rest = f" and {len(counts) - _SHOWN} other sizes" if len(counts) > _SHOWN else ""
    yield f"Sizes in pixels, height x width: {', '.join(shown)}{rest}."
    size, fit, why = found.resolution.size, found.resolution.fit, found.resolution.why
    yield f"  {why}" if why else f"  Size: {size[0]} x {size[1]}, data.fit={fit}, as given."
    if settings.data.tile is not None:
        return
    factor = statistics.median(max(height / size[0], width / size[1]) for height, width in counts.elements())
    if factor > _SHRUNK:
        yield (
            f"  Warning: that shrinks them {factor:.1f} times: a defect of {4 * factor:.0f} pixels is left with 4. "
            "Where defects are small, cut images into tiles (data.tile=224, docs/tiles.md) or name a larger data.size."
        )


def _origin(found: Survey) -> Iterator[str]:
    index = found.index
    if index.has_months:
        yield f"Months: {len(index.months)}, {index.months[0]} to {index.months[-1]}."
    if index.has_groups:
        groups = {record.group for record in index.records if record.group is not None}
        yield f"Groups (coil, plate, lot): {len(groups)}; no split divides one."
    elif found.splits is not None and not any(record.split for record in index.records):
        yield (
            "Groups (coil, plate, lot): none named. Where several images show one part, name it, or the test is too "
            "easy (a folder level below the class with data.groups=folder, or a column group)."
        )


def _split(found: Survey) -> Iterator[str]:
    if found.splits is None:
        yield f"Split: not possible: {found.refusal}."
        return
    fold, test, records = found.splits.folds[0], found.splits.test, found.index.records
    months = sorted({records[row].month or "" for row in test.tolist()})
    if all(record.split is not None for record in records):
        how = "as the folders or the table say"
    elif months[0]:
        how = (
            f"tested on the newest month, {months[0]}" if len(months) == 1 else f"tested on {months[0]} to {months[-1]}"
        )
    else:
        how = "drawn at random, each class in its share"
    folds = f" in {len(found.splits.folds)} folds" if len(found.splits.folds) > 1 else ""
    yield f"Split: {len(fold.train)} to train, {len(fold.val)} to choose by{folds}, {len(test)} to test once; {how}."
    yield from (f"  {note}" for note in found.splits.notes)


def _enough(found: Survey) -> Iterator[str]:
    if found.splits is None:
        return
    test = len(found.splits.test)
    low, high = known_as(0.95, test)
    told = f"an accuracy of 95 % on {test} test images is known as {100 * low:.0f} to {100 * high:.0f} %"
    needed = f" It takes {images_needed(0.95, 0.90)} test images." * (low <= 0.90)
    yield f"Enough to tell 95 % from 90 %: {'yes' if low > 0.90 else 'no'}; {told}.{needed}"
    counts = np.bincount(found.index.labels[found.splits.test], minlength=len(found.index.classes))
    few = int(((counts > 0) & (counts < _FEW)).sum())
    if few:
        place = int(np.argmin(np.where(counts > 0, counts, counts.max() + 1)))
        worst, _ = known_as(1.0, int(counts[place]))
        others = f" ({few} classes have fewer than {_FEW})" if few > 1 else ""
        yield (
            f"  Rarest in the test: {printable(found.index.classes[place])}, {counts[place]}; all of them right "
            f"would show only that more than {100 * worst:.0f} % are{others}."
        )


def _cost(found: Survey, settings: Settings) -> Iterator[str]:
    """A range that is wide on purpose: nothing has been trained."""
    if found.splits is None:
        return
    height, width = found.resolution.size
    epoch = sum(len(fold.train) for fold in found.splits.folds) * height * width / 1e6
    trained = f"an epoch trains {epoch:.1f} megapixels ({height} x {width} pixels an image)"
    if has_gpu():
        yield f"Cost: {trained}; minutes, with the GPU."
        return
    cores = len(os.sched_getaffinity(0))
    work = epoch * settings.trainer.epochs * settings.search.trials
    low, high = (_about(_LEAST + part * work / min(cores, 4) / 60) for part in _CORE_SECONDS)
    span = low if low == high else f"{low} to {high}"
    yield f"Cost: {trained}; a search takes very roughly {span} minutes on {cores} cores."


def _about(minutes: float) -> str:
    return f"{max(1, round(minutes))}" if minutes < 20 else f"{round(minutes, -1):.0f}"
