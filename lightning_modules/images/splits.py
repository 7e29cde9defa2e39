"""Training, validation and test images: seeded, stratified, by month, and never parting a group or a picture."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from lightning_modules.errors import InputError, printable
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows, Units

__all__ = ["Fold", "Splits", "TestChoice", "ValidationChoice", "make_splits"]

TestChoice = Literal["auto", "newest_month", "random", "rest"]
ValidationChoice = Literal["random", "newest_month"]

_FRACTION: Final = 0.2
_MANY: Final = 10_000


@dataclass(frozen=True, eq=False)
class Fold:
    """One way to train and to validate: int64, ascending positions in the index."""

    train: Rows
    val: Rows


@dataclass(frozen=True, eq=False)
class Splits:
    """How a set is used.

    Attributes:
        folds: At least one; a trial's objective is their mean.
        test: int64, ascending positions in the index; in no fold.
        digest: Of the index and of all positions.
        notes: What the user should know: images in no split, classes missing from validation or test.
    """

    folds: tuple[Fold, ...]
    test: Rows
    digest: str
    notes: tuple[str, ...] = ()


def make_splits(
    index: ImageIndex,
    *,
    test: TestChoice = "auto",
    test_months: int = 1,
    test_fraction: float = _FRACTION,
    validation: ValidationChoice = "random",
    validation_fraction: float = _FRACTION,
    folds: int = 1,
    repeats: int = 1,
    max_train_per_class: int | None = None,
    seed: int = 0,
) -> Splits:
    """Splits an index.

    Images of one group, and copies of one picture, are never parted. Every class is in every training set. Where the
    test or validation months share a group or a picture with older months, the older images are in no split.
    Without groups and copies each class is split in its share, to within one image.

    Args:
        index: The images. Where they carry a split (manifest), it is kept as it is; without validation images there,
            they are chosen among its training images.
        test: "newest_month" (the default, "auto", where the images have months), "random", or "rest": all that
            `max_train_per_class` for training, and as many for validation, leave. There, validation takes at most
            half of what training leaves.
        test_months: How many of the newest months are the test set.
        test_fraction: Share of the images in a random test set, in (0, 1).
        validation: "random", or "newest_month": the newest month that is not test.
        validation_fraction: Share of the other images in a random validation set, in (0, 1).
        folds: From 2 on, stratified folds over all images that are not test.
        repeats: How often folds, or the random validation set, are drawn anew: folds x repeats folds in all.
        max_train_per_class: Training images kept of each class.

    Raises:
        InputError: An argument is wrong or would have no effect, the images do not allow the split asked for, or a
            given split parts a group or copies of a picture.
    """
    given = bool(index.records) and all(record.split is not None for record in index.records)
    numbers = {"test_months": test_months, "folds": folds, "repeats": repeats}
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    _check_values(test, validation, numbers, fractions, max_train_per_class, seed)
    mode: str = "given" if given else test if test != "auto" else "newest_month" if index.has_months else "random"
    own_validation = given and any(record.split == "val" for record in index.records)
    _check_effects(test, mode, own_validation, validation, numbers, fractions, max_train_per_class)

    units = Units(index, seed)
    everything = np.arange(len(index.records), dtype=np.int64)
    if mode == "rest":
        parts = [_rest(units, everything, max_train_per_class or 1)]
        test_rows = np.setdiff1d(everything, _closed(units, everything, np.concatenate([parts[0].train, parts[0].val])))
    else:
        if mode == "given":
            pool, test_rows = _given(index, everything)
        elif mode == "newest_month":
            pool, test_rows = _newest(index, units, everything, test_months, "data.test")
        else:
            test_rows = units.take(everything, test_fraction * units.counts(everything), "test")
            pool = np.setdiff1d(everything, test_rows)
        if own_validation:
            val = np.array([row for row in everything if index.records[row].split == "val"], dtype=np.int64)
            parts = [Fold(np.setdiff1d(pool, val), val)]
        elif validation == "newest_month":
            parts = [Fold(*_newest(index, units, pool, 1, "data.validation"))]
        elif folds > 1:
            dealt = [units.deal(pool, folds, f"folds/{repeat}") for repeat in range(repeats)]
            parts = [Fold(np.setdiff1d(pool, val), val) for part in dealt for val in part]
        else:
            target = validation_fraction * units.counts(pool)
            drawn = [units.take(pool, target, f"validation/{repeat}") for repeat in range(repeats)]
            parts = [Fold(np.setdiff1d(pool, val), val) for val in drawn]
        if max_train_per_class is not None:
            parts = [Fold(units.cap(fold.train, max_train_per_class, "cap"), fold.val) for fold in parts]
    _check_result(index, units, parts, test_rows)
    return Splits(tuple(parts), test_rows, _digest(index, parts, test_rows), _notes(index, units, parts, test_rows))


def _check_values(
    test: str,
    validation: str,
    numbers: dict[str, int],
    fractions: dict[str, float],
    max_train_per_class: int | None,
    seed: int,
) -> None:
    for name, value, accepted in (("test", test, TestChoice), ("validation", validation, ValidationChoice)):
        if value not in get_args(accepted):
            raise InputError(f"data.{name}={value!r}; accepted are {', '.join(get_args(accepted))}")
    wholes = numbers | ({} if max_train_per_class is None else {"max_train_per_class": max_train_per_class})
    for name, number in wholes.items():
        largest = _MANY if name != "max_train_per_class" else 2**31
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= largest:
            raise InputError(f"data.{name} must be a whole number in 1..{largest}, got {number!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, got {seed!r}")
    for name, fraction in fractions.items():
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise InputError(f"data.{name} must be in (0, 1), got {fraction!r}")


def _check_effects(
    test: str,
    mode: str,
    own_validation: bool,
    validation: str,
    numbers: dict[str, int],
    fractions: dict[str, float],
    max_train_per_class: int | None,
) -> None:
    """An option that would be ignored is refused."""
    chosen = "the split that the manifest or the folders give" if mode == "given" else f"data.test={mode}"
    fixed = own_validation or mode == "rest"
    newest = validation == "newest_month"
    folds, repeats, test_fraction = numbers["folds"], numbers["repeats"], fractions["test_fraction"]
    for name, value, ignored, because in (
        ("test", test, mode == "given" and test != "auto", chosen),
        ("test_months", numbers["test_months"], mode != "newest_month" and numbers["test_months"] != 1, chosen),
        ("test_fraction", test_fraction, mode != "random" and test_fraction != _FRACTION, chosen),
        ("validation", validation, fixed and newest, chosen),
        ("folds", folds, fixed and folds > 1, chosen),
        ("repeats", repeats, fixed and repeats > 1, chosen),
        ("folds", folds, newest and folds > 1, "data.validation=newest_month"),
        ("repeats", repeats, newest and repeats > 1, "data.validation=newest_month"),
        (
            "validation_fraction",
            fractions["validation_fraction"],
            (fixed or newest or folds > 1) and fractions["validation_fraction"] != _FRACTION,
            chosen if fixed else "data.validation=newest_month" if newest else f"data.folds={folds}",
        ),
    ):  # fmt: skip
        if ignored:
            raise InputError(f"data.{name}={value} has no effect with {because}; leave it at its default")
    if mode == "rest" and max_train_per_class is None:
        raise InputError("data.test=rest needs data.max_train_per_class, the number of training images a class")


def _given(index: ImageIndex, everything: Rows) -> tuple[Rows, Rows]:
    kinds: tuple[tuple[str, Callable[[int], str | None]], ...] = (
        ("the same picture", lambda row: index.records[row].digest),
        ("the same group", lambda row: index.records[row].group),
    )
    for kind, key in kinds:
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row in everything.tolist():
            value = key(row)
            if value is not None:
                rows_of[value].append(row)
        for rows in rows_of.values():
            first = index.records[rows[0]]
            other = next((index.records[row] for row in rows if index.records[row].split != first.split), None)
            if other is not None:
                raise InputError(
                    f"given split: {printable(first.path)} ({first.split}) and {printable(other.path)} "
                    f"({other.split}) are of {kind}, which must be in one split; keep one of them, or move "
                    "both into one"
                )
    in_test = np.array([record.split == "test" for record in index.records])
    if not in_test.any():
        raise InputError(
            "the given split has no test image; accepted are train, val and test, of which val may be absent"
        )
    return everything[~in_test], everything[in_test]


def _newest(index: ImageIndex, units: Units, pool: Rows, count: int, option: str) -> tuple[Rows, Rows]:
    """Older rows without those tied to the newest months, and the newest months' rows."""
    if not index.has_months:
        raise InputError(f"{option}=newest_month needs months, and these images have none; accepted here: random")
    months = np.array([index.records[row].month for row in pool])
    newest = sorted(set(months.tolist()))[-count:]
    inside = np.isin(months, newest)
    if inside.all():
        raise InputError(
            f"{option}=newest_month takes all months there are ({newest[0]}..{newest[-1]}) and leaves none for training"
        )
    rows = pool[inside]
    older = pool[~inside]
    free = older[~np.isin(units.of[older], units.of[rows])]
    if not len(free):
        raise InputError(f"{option}=newest_month: every older image shares a group with {', '.join(newest)}")
    return free, rows


def _rest(units: Units, everything: Rows, most: int) -> Fold:
    wanted = np.minimum(most, units.counts(everything))
    taken = units.take(everything, wanted, "train", keep=2, reach=True)
    left = np.setdiff1d(everything, taken)
    target = np.minimum(most, units.counts(left) // 2)
    val = units.take(left, target, "validation", keep=1, reach=True)
    return Fold(units.cap(taken, most, "cap"), units.cap(val, most, "cap"))


def _closed(units: Units, pool: Rows, rows: Rows) -> Rows:
    """All rows of the pool in the units of some rows."""
    return pool[np.isin(units.of[pool], units.of[rows])]


def _check_result(index: ImageIndex, units: Units, parts: list[Fold], test: Rows) -> None:
    for fold in parts:
        absent = np.flatnonzero(units.counts(fold.train) == 0)
        if len(absent):
            rows = np.flatnonzero(index.labels == absent[0])
            held = f"{len(rows)} images in {len(np.unique(units.of[rows]))} groups or single images"
            months = sorted({index.records[row].month or "" for row in rows.tolist()} - {""})
            when = f", months {months[0]}..{months[-1]}" if months else ""
            given = any(index.records[row].split for row in rows.tolist())
            advice = "; the given split has none of it in train: move some there, or leave the class out" * given
            raise InputError(
                f"class {index.classes[absent[0]]!r} ({held}{when}) is left without training images{advice}"
            )
    for what, rows in (("test", test), *(("validation", fold.val) for fold in parts)):
        if not len(rows):
            raise InputError(
                f"no {what} images can be set apart from {len(index.records)} images "
                f"in {len(np.unique(units.of))} groups that must not be parted"
            )


def _notes(index: ImageIndex, units: Units, parts: list[Fold], test: Rows) -> tuple[str, ...]:
    notes = []
    used = np.unique(np.concatenate([test, *(rows for fold in parts for rows in (fold.train, fold.val))]))
    unused = len(index.records) - len(used)
    if unused:
        notes.append(f"{unused} images are in no split: beyond a cap, or tied by group or picture to newer months")
    for what, counts in (
        ("the test set", units.counts(test)),
        ("a validation set", np.min([units.counts(fold.val) for fold in parts], axis=0)),
    ):
        absent = [index.classes[number] for number in np.flatnonzero(counts == 0)]
        if absent:
            notes.append(f"classes missing from {what}: {', '.join(absent)}")
    return tuple(notes)


def _digest(index: ImageIndex, parts: list[Fold], test: Rows) -> str:
    digest = hashlib.blake2b(index.digest.encode(), digest_size=16)
    for rows in (test, *(rows for fold in parts for rows in (fold.train, fold.val))):
        digest.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
    return digest.hexdigest()
