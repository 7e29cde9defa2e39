"""Checks of a set as a whole."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_modules.errors import BadImages, Problem
from lightning_modules.images.index import build_index
from lightning_modules.images.listing import ListedImage, Listing

Row = tuple[str, str]


def _build(rows: list[Row], *, root: str = "root", bad: tuple[Problem, ...] = (), **options: Any) -> Any:
    """Rows of (label, digest), or (label, "!reason") for a bad image."""
    listing = Listing(Path(root), problems=list(bad))
    contents: list[str | Problem] = []
    for number, (label, digest) in enumerate(rows):
        path = Path(root, label, f"{number}.png")
        listing.images.append(ListedImage(path, label, "2019-01", None, None, None))
        contents.append(Problem(str(path), digest[1:]) if digest.startswith("!") else digest)
    return build_index(listing, contents, **({"min_per_class": 2} | options))


GOOD: list[Row] = [("b", "d4"), ("a", "d1"), ("b", "d2"), ("a", "d3")]


def test_records_are_in_the_order_of_content() -> None:
    index, rows = _build(GOOD)
    assert [record.digest for record in index.records] == ["d1", "d2", "d3", "d4"]
    assert index.classes == ("a", "b")
    np.testing.assert_array_equal(index.labels, [0, 1, 0, 1])
    assert index.labels.dtype == np.int64 and not index.labels.flags.writeable
    np.testing.assert_array_equal(rows, range(4))
    assert index.class_counts() == {"a": 2, "b": 2}
    assert index.months == ("2019-01",) and index.has_months and not index.has_groups
    assert index.notes == index.set_aside == ()


def test_the_digest_depends_on_content_alone() -> None:
    digests = set()
    for seed, root in enumerate(["root", "elsewhere", "a/b"]):
        rows = list(GOOD)
        random.Random(seed).shuffle(rows)
        digests.add(_build(rows, root=root)[0].digest)
    assert len(digests) == 1
    relabelled = _build([("b", "d4"), ("a", "d1"), ("a", "d2"), ("b", "d3")])[0].digest
    changed = _build([*GOOD[:3], ("a", "d5")])[0].digest
    assert len({relabelled, changed} | digests) == 3


def test_everything_wrong_is_reported_at_once() -> None:
    rows = [*GOOD, ("a", "!truncated"), ("c", "d9"), ("a", "same"), ("b", "same")]
    with pytest.raises(
        BadImages, match=r"5 bad inputs in root \(data\.on_bad=refuse\): first: root/x: not a month"
    ) as e:
        _build(rows, bad=(Problem("root/x", "not a month"),))
    reasons = [str(problem) for problem in e.value.problems]
    assert reasons[1] == "root/a/4.png: truncated"
    assert reasons[2] == "root/a/6.png: labelled 'a', but the same picture is labelled 'b' in root/b/7.png"
    assert reasons[3].startswith("root/b/7.png: labelled 'b'")
    assert reasons[4] == "root: class 'c' has 1 usable images, fewer than data.min_per_class=2"


def test_set_aside_drops_what_is_wrong_and_then_small_classes() -> None:
    rows = [*GOOD, ("a", "!truncated"), ("c", "d0"), ("c", "same"), ("a", "same")]
    index, kept = _build(rows, on_bad="set_aside")
    assert [record.digest for record in index.records] == ["d1", "d2", "d3", "d4"]
    np.testing.assert_array_equal(kept, [1, 2, 3, 4])
    assert index.classes == ("a", "b")
    assert len(index.set_aside) == 4
    assert index.set_aside[-1].reason == "class 'c' has 1 usable images, fewer than data.min_per_class=2"


@pytest.mark.parametrize("on_bad", ["refuse", "set_aside"])
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("a", "d1"), ("a", "d2")], "only the class 'a'; at least 2 classes are needed"),
        ([], "no images; at least 2 classes are needed"),
    ],
)
def test_fewer_than_two_classes_are_refused(rows: list[Row], reason: str, on_bad: str) -> None:
    with pytest.raises(BadImages, match=reason):
        _build(rows, on_bad=on_bad)


def test_two_classes_must_be_left() -> None:
    with pytest.raises(BadImages, match=r"set_aside\): first: root: only the class 'a' left"):
        _build([("a", "d1"), ("a", "d2"), ("b", "d3"), ("b", "!bad")], on_bad="set_aside")


def test_copies_under_one_label_are_kept_and_noted() -> None:
    index, _ = _build([*GOOD, ("a", "d1"), ("b", "d2"), ("b", "d2")])
    assert len(index.records) == 7
    assert index.notes == (
        "pictures that occur more than once under one label: 2 (5 files); splits keep their copies together",
    )
