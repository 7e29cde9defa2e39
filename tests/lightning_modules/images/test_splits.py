"""Laws of splitting, and the modes by example."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from lightning_modules.images.index import ImageIndex, ImageRecord
from lightning_modules.images.splits import Splits, make_splits
from lightning_modules.images.store import load_images

DATA = Path(__file__).parents[3].parent / "shared" / "data"


def _counts(index: ImageIndex, rows: Any) -> list[int]:
    return np.bincount(index.labels[rows], minlength=len(index.classes)).tolist()


def _parts(splits: Splits) -> list[set[int]]:
    return [{*splits.test.tolist()}, *({*rows.tolist()} for fold in splits.folds for rows in (fold.train, fold.val))]


def _check_laws(index: ImageIndex, splits: Splits, *, exhaustive: bool) -> None:
    for fold in splits.folds:
        parts = [splits.test, fold.train, fold.val]
        used = np.concatenate(parts)
        assert all(rows.dtype == np.int64 and (np.diff(rows) > 0).all() and len(rows) for rows in parts)
        assert len(np.unique(used)) == len(used)
        assert not exhaustive or len(used) == len(index.records)
        assert set(index.labels[fold.train]) == set(range(len(index.classes)))
        for key in ("group", "digest"):
            places = defaultdict(set)
            for number, rows in enumerate(parts):
                for row in rows.tolist():
                    places[getattr(index.records[row], key)].add(number)
            places.pop(None, None)
            assert all(len(found) == 1 for found in places.values())


Rows = list[tuple[str, str | None, str | None, None, str | None]]


@st.composite
def _rows(draw: st.DrawFn, *, months: bool = False, ties: bool = True) -> Rows:
    """Three classes of 6 to 30 images, with groups (of one class or of several) and copies where `ties`."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    grouping = draw(st.sampled_from(["none", "pure", "mixed", "some"])) if ties else "none"
    rows: Rows = []
    for label in "abc":
        for number in range(draw(st.integers(6, 30))):
            month = f"2019-0{1 + rng.randrange(5)}" if months else None
            pure = f"{label}{number // 3}" if not months else f"{label}{month}{number // 3}"
            mixed = f"g{rng.randrange(8)}" if not months else f"{month}{rng.randrange(2)}"
            group = {"none": None, "pure": pure, "mixed": mixed, "some": pure if number % 2 else None}[grouping]
            copy = ties and rng.random() < 0.1
            rows.append((label, month, group, None, f"copied {label}{number // 10}" if copy else f"{label}{number}"))
    return rows


def _index(rows: Sequence[Any]) -> ImageIndex:
    records = tuple(ImageRecord(Path(f"{n}.png"), *row[:4], None, row[4]) for n, row in enumerate(rows))
    return ImageIndex(records, tuple(sorted({row[0] for row in rows})), digest="drawn")


LAWS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"test_fraction": 0.35, "validation_fraction": 0.1},
    {"folds": 3},
    {"folds": 2, "repeats": 2},
    {"repeats": 3},
    {"max_train_per_class": 4},
    {"test": "rest", "max_train_per_class": 3},
]


@LAWS
@given(_rows(), st.sampled_from(OPTIONS), st.integers(0, 5))
def test_laws_without_months(rows: Rows, options: dict[str, Any], seed: int) -> None:
    index = _index(rows)
    try:
        splits = make_splits(index, **options, seed=seed)
    except InputError as error:
        assert re.search("left without training images|no .* images can be set apart", str(error))
        assume(False)
    capped = "max_train_per_class" in options
    _check_laws(index, splits, exhaustive=not capped)
    assert len(splits.folds) == options.get("folds", 1) * options.get("repeats", 1)
    if capped:
        assert all(max(_counts(index, fold.train)) <= options["max_train_per_class"] for fold in splits.folds)
    if options.get("folds", 1) > 1:
        rest = np.setdiff1d(np.arange(len(rows)), splits.test)
        validated = Counter(row for fold in splits.folds for row in fold.val.tolist())
        assert validated == dict.fromkeys(rest.tolist(), options.get("repeats", 1))


@LAWS
@given(_rows(months=True), st.sampled_from(["random", "newest_month"]), st.integers(1, 2))
def test_laws_with_months(rows: Rows, validation: Any, test_months: int) -> None:
    index = _index(rows)
    try:
        splits = make_splits(index, validation=validation, test_months=test_months)
    except InputError as error:
        assert re.search("without training|set apart|newest_month", str(error))
        assume(False)
    _check_laws(index, splits, exhaustive=False)
    months = np.array([record.month for record in index.records])
    newest = index.months[-test_months:]
    np.testing.assert_array_equal(splits.test, np.flatnonzero(np.isin(months, newest)))
    fold = splits.folds[0]
    if validation == "newest_month":
        assert len(set(months[fold.val])) == 1 and max(months[fold.train]) < min(months[fold.val])
    tied = len(index.records) - len(splits.test) - len(fold.train) - len(fold.val)
    assert (f"{tied} images are in no split" in " ".join(splits.notes)) == (tied > 0)


@LAWS
@given(_rows(), st.sampled_from(OPTIONS), st.integers(0, 3), st.randoms(use_true_random=False))
def test_seeds_decide_and_order_does_not(rows: Rows, options: dict[str, Any], seed: int, shuffler: Any) -> None:
    index = _index(rows)
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    try:
        first = make_splits(index, **options, seed=seed)
    except InputError:
        assume(False)
    again = make_splits(index, **options, seed=seed)
    assert _parts(first) == _parts(again) and first.digest == again.digest
    shuffled = make_splits(_index([rows[row] for row in order]), **options, seed=seed)
    if "max_train_per_class" not in options:  # which of two copies a cap keeps is the index's order
        assert _parts(first) == [{order[row] for row in part} for part in _parts(shuffled)]


@LAWS
@given(_rows(ties=False), st.floats(0.1, 0.5), st.floats(0.1, 0.5), st.integers(2, 5))
def test_single_images_are_split_in_their_share(rows: Rows, test: float, val: float, folds: int) -> None:
    index = _index(rows)
    total = np.array(_counts(index, np.arange(len(rows))))
    splits = make_splits(index, test_fraction=test, validation_fraction=val)
    held = np.array(_counts(index, splits.test))
    assert (np.abs(held - test * total) < 1).all()
    assert (np.abs(np.array(_counts(index, splits.folds[0].val)) - val * (total - held)) < 1).all()
    dealt = make_splits(index, folds=folds)
    by_fold = np.array([_counts(index, fold.val) for fold in dealt.folds])
    assert (by_fold.max(0) - by_fold.min(0) <= 1).all()
    sizes = [len(fold.val) for fold in dealt.folds]
    assert max(sizes) - min(sizes) <= 2


def test_other_seeds_give_other_splits(make_index) -> None:
    single = make_index([("a",), ("b",)] * 30)
    grouped = make_index([(label, None, f"g{number % 7}") for number in range(70) for label in "ab"])
    for index, several in ((single, 6), (grouped, 3)):
        assert len({make_splits(index, seed=seed).digest for seed in range(6)}) >= several
        repeats = make_splits(index, repeats=5).folds
        assert len({fold.val.tobytes() for fold in repeats}) > 1
        dealt = make_splits(index, folds=3, repeats=2).folds
        assert {fold.val.tobytes() for fold in dealt[:3]} != {fold.val.tobytes() for fold in dealt[3:]}


def test_auto_is_the_newest_month_or_random(make_index) -> None:
    months = make_index([(label, f"2019-{month:02}") for month in range(1, 13) for label in "ab" for _ in range(5)])
    splits = make_splits(months)
    assert {months.records[row].month for row in splits.test} == {"2019-12"}
    assert {months.records[row].month for row in splits.folds[0].val} != {"2019-11"}
    newest = make_splits(months, test_months=2, validation="newest_month")
    assert {months.records[row].month for row in newest.test} == {"2019-11", "2019-12"}
    assert {months.records[row].month for row in newest.folds[0].val} == {"2019-10"}
    assert len({months.records[row].month for row in make_splits(months, test="random").test}) > 3


def test_older_images_tied_to_the_newest_month_are_left_out(make_index) -> None:
    rows = [(label, "2019-01", f"{label}{n // 2}") for label in "ab" for n in range(10)]
    rows += [("a", "2019-02", "a0"), ("b", "2019-02", None, None, "the copy"), ("b", "2019-01", None, None, "the copy")]
    splits = make_splits(make_index(rows))
    assert splits.test.tolist() == [20, 21]
    assert sorted(_parts(splits)[1] | _parts(splits)[2]) == list(range(2, 20))
    assert splits.notes[0].startswith("3 images are in no split")


@pytest.mark.parametrize(
    ("sizes", "most", "train", "val", "test"),
    [
        ([300, 300], 150, [150, 150], [75, 75], [75, 75]),
        ([300, 300], 10, [10, 10], [10, 10], [280, 280]),
        ([300, 32], 30, [30, 30], [30, 1], [240, 1]),
        ([300, 5], 10, [10, 3], [10, 1], [280, 1]),
        ([300, 3], 10, [10, 1], [10, 1], [280, 1]),
        ([300, 2], 10, [10, 1], [10, 0], [280, 1]),
        ([300, 1], 10, [10, 1], [10, 0], [280, 0]),
    ],
)
def test_rest(make_index, sizes: list[int], most: int, train: list[int], val: list[int], test: list[int]) -> None:
    index = make_index([(label,) for label, size in zip("ab", sizes, strict=True) for _ in range(size)])
    splits = make_splits(index, test="rest", max_train_per_class=most)
    assert [_counts(index, rows) for rows in (splits.folds[0].train, splits.folds[0].val, splits.test)] == [
        train,
        val,
        test,
    ]
    absent = [
        f"classes missing from {what}: b" for what, n in (("the test set", test), ("a validation set", val)) if not n[1]
    ]
    assert list(splits.notes) == absent


def test_a_given_split_is_kept(make_index) -> None:
    rows = [(label, None, None, split) for split in ("train", "val", "test") for label in "ab" for _ in range(4)]
    splits = make_splits(make_index(rows), seed=3)
    assert [sorted(part) for part in _parts(splits)] == [[*range(16, 24)], [*range(8)], [*range(8, 16)]]
    capped = make_splits(make_index(rows), max_train_per_class=2)
    assert len(capped.folds[0].train) == 4 and len(capped.folds[0].val) == 8
    without = [(label, None, None, split) for split in ("train", "test") for label in "ab" for _ in range(10)]
    splits = make_splits(make_index(without), folds=2)
    assert sorted(splits.test) == [*range(20, 40)] and len(splits.folds) == 2


GIVEN = [(label, None, None, split) for split in ("train", "val", "test") for label in "ab" for _ in range(4)]
PLAIN = [(label,) for label in "ab" for _ in range(10)]
MONTHS = [(label, f"2019-0{month}") for month in range(1, 5) for label in "ab" for _ in range(5)]


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        (PLAIN, {"test": "newest_month"}, "data.test=newest_month needs months, and these images have none"),
        (PLAIN, {"validation": "newest_month"}, "data.validation=newest_month needs months"),
        (MONTHS, {"test_months": 4}, r"takes all months there are \(2019-01..2019-04\) and leaves none"),
        (MONTHS, {"test_months": 3, "validation": "newest_month"}, "data.validation=newest_month takes all months"),
        (PLAIN, {"test": "rest"}, "data.test=rest needs data.max_train_per_class"),
        (PLAIN, {"test": "month"}, "data.test='month'; accepted are auto, newest_month, random, rest"),
        (PLAIN, {"validation": "rest"}, "data.validation='rest'; accepted are random, newest_month"),
        (PLAIN, {"folds": 0}, r"data.folds must be a whole number in 1..10000, got 0"),
        (PLAIN, {"repeats": True}, "data.repeats must be a whole number"),
        (PLAIN, {"max_train_per_class": 0}, "data.max_train_per_class must be a whole number"),
        (PLAIN, {"test_fraction": 1.0}, r"data.test_fraction must be in \(0, 1\), got 1.0"),
        (PLAIN, {"validation_fraction": float("nan")}, r"data.validation_fraction must be in \(0, 1\), got nan"),
        (PLAIN, {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        (PLAIN, {"test_months": 2}, "data.test_months=2 has no effect with data.test=random"),
        (MONTHS, {"test_fraction": 0.3}, "data.test_fraction=0.3 has no effect with data.test=newest_month"),
        (MONTHS, {"validation": "newest_month", "folds": 2}, "data.folds=2 has no effect with data.validation"),
        (MONTHS, {"validation": "newest_month", "repeats": 2}, "data.repeats=2 has no effect"),
        (MONTHS, {"validation": "newest_month", "validation_fraction": 0.3}, "data.validation_fraction=0.3 has no"),
        (PLAIN, {"folds": 2, "validation_fraction": 0.3}, "no effect with data.folds=2"),
        (PLAIN, {"test": "rest", "max_train_per_class": 2, "folds": 2}, "data.folds=2 has no effect with data.test"),
        (GIVEN, {"test": "random"}, "data.test=random has no effect with the split that the manifest or the folders"),
        (GIVEN, {"folds": 2}, "data.folds=2 has no effect with the split that the manifest or the folders"),
        (GIVEN[:16], {}, "the given split has no test image"),
        (
            [*GIVEN, ("a", None, None, "train", "x"), ("a", None, None, "test", "x")],
            {},
            r"24.png \(train\) and 25.png \(test\) are of the same picture, which must be in one split",
        ),
        ([*GIVEN, ("a", None, "g", "val"), ("a", None, "g", "test")], {}, "are of the same group"),
        ([*MONTHS, ("c", "2019-04")], {}, "class 'c' .1 images in 1 groups .* months 2019-04..2019-04. is left"),
        ([(label, None, label) for label in "ab" * 5], {"folds": 2}, "class 'a' .5 images in 1 groups"),
        ([(label, None, "one") for label in "ab" * 5], {}, "no test images can be set apart from 10 images in 1"),
        ([(label, None, f"g{n % 2}") for n, label in enumerate("abab" * 5)], {}, "no test images|no validation images"),
    ],
)  # fmt: skip
def test_bad_requests_get_one_line(make_index, rows: Any, options: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        make_splits(make_index(rows), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("options", [{}, {"folds": 3, "repeats": 2}, {"test": "rest", "max_train_per_class": 10}])
def test_groups_of_the_magnetic_tiles_never_straddle(tmp_path: Path, options: Any) -> None:
    index = load_images("manifest", DATA / "magnetic_tile" / "manifest.csv", size=(32, 32), cache=tmp_path).index
    tests = set()
    for seed in range(8):
        splits = make_splits(index, **options, seed=seed)
        _check_laws(index, splits, exhaustive="test" not in options)
        assert set(index.labels[splits.test]) == set(range(6))
        assert all(set(index.labels[fold.val]) == set(range(6)) for fold in splits.folds)
        tests.add(splits.test.tobytes())
    assert len(tests) > 2


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_neu_is_split_by_month_or_by_number(tmp_path: Path) -> None:
    index = load_images("manifest", DATA / "neu" / "manifest.csv", size=(32, 32), cache=tmp_path).index
    by_month = make_splits(index, validation="newest_month")
    _check_laws(index, by_month, exhaustive=False)
    assert _counts(index, by_month.test) == [12] * 6 and _counts(index, by_month.folds[0].val) == [24] * 6
    for most, left in ((10, 280), (150, 75)):
        rest = make_splits(index, test="rest", max_train_per_class=most)
        assert _counts(index, rest.folds[0].train) == [most] * 6
        assert np.abs(np.array(_counts(index, rest.test)) - left).max() <= 2
