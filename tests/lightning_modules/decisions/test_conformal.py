"""Prediction sets: their limits against the definition, what they promise, and what is read back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightning_modules.decisions.conformal import (
    CalibrationScores,
    categories,
    decided,
    fewest_groups,
    prediction_sets,
    read_scores,
    score_limits,
    scores_json,
)
from lightning_modules.errors import InputError


def calibration(scores: list[float], labels: list[int], groups: list[int] | None = None) -> CalibrationScores:
    numbers = list(range(len(scores))) if groups is None else groups
    return CalibrationScores(np.array(scores, np.float64), np.array(labels), np.array(numbers))


@pytest.mark.parametrize(("coverage", "groups"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_how_many_groups_a_promise_needs(coverage: float, groups: int) -> None:
    assert fewest_groups(coverage) == groups
    enough = calibration(list(range(groups)), [0] * groups)
    (one,) = categories(enough, 1, coverage)
    assert one.limit == groups - 1  # with the fewest, the largest of them
    with pytest.raises(InputError, match=rf"coverage={coverage:g} needs .* at least {groups} groups"):
        categories(calibration(list(range(groups - 1)), [0] * (groups - 1)), 1, coverage)


@given(st.lists(st.floats(0, 50), min_size=19, max_size=60), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_without_groups_the_limit_is_the_one_of_the_definition(scores: list[float], coverage: float) -> None:
    (one,) = categories(calibration(scores, [0] * len(scores)), 1, coverage)
    assert one.limit == sorted(scores)[math.ceil((len(scores) + 1) * coverage - 1e-9) - 1]


def test_images_of_one_group_count_together() -> None:
    # Nine images of one coil say as much as one: ten groups of which that one is the tenth.
    scores, groups = [*range(9), *[100.0] * 9], [*range(9), *[9] * 9]
    (one,) = categories(calibration(scores, [0] * 18, groups), 1, 0.8)
    assert (one.images, one.groups, one.limit) == (18, 10, 8.0)
    # Counted as images they would be half of all.
    (alone,) = categories(calibration(scores, [0] * 18), 1, 0.8)
    assert alone.limit == 100.0


def test_each_class_has_its_own_limit_and_rare_ones_share_one() -> None:
    labels = [0] * 30 + [1] * 12 + [2] * 5 + [3] * 3
    scores = [float(label) + number / 100 for number, label in enumerate(labels)]
    found = categories(calibration(scores, labels), 4, 0.9)
    assert [(one.classes, one.images) for one in found] == [((0,), 30), ((1, 2, 3), 20)]  # 8 of the rare are too few
    limits = score_limits(found)
    assert limits[1] == limits[2] == limits[3] > limits[0]
    assert [one.classes for one in categories(calibration(scores, labels), 4, 0.75)] == [(0,), (1,), (2,), (3,)]


def test_a_class_without_images_is_not_forgotten() -> None:
    found = categories(calibration([0.1] * 40, [0, 1] * 20), 3, 0.9)
    assert sorted(label for one in found for label in one.classes) == [0, 1, 2]
    assert next(one for one in found if 2 in one.classes).groups >= 9


@pytest.mark.parametrize("error", [-1e-4, 0.0, 1e-4])
def test_the_image_that_sets_a_limit_is_inside_whatever_the_last_digits_are(error: float) -> None:
    scores = np.linspace(0.1, 2.0, 20)
    limits = score_limits(categories(calibration(scores.tolist(), [0] * 20), 2, 0.9))
    inside = prediction_sets(-np.stack([scores, scores + 9], axis=1) * (1 + error), limits)
    assert inside[:, 0].sum() == math.ceil(21 * 0.9) and not inside[:, 1].any()


def _drawn(rng: np.random.Generator, groups: int, size: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log-probabilities and labels of images whose groups are alike: each has an easiness of its own."""
    labels = np.repeat(rng.integers(0, 2, groups), size)
    right = rng.normal(1.0, 1.0, groups).repeat(size) + rng.normal(0, 0.3, groups * size)
    logits = np.where(np.arange(2) == labels[:, None], right[:, None], 0.0)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), labels


@pytest.mark.parametrize("size", [1, 6])
def test_the_promise_is_kept(size: int) -> None:
    """Over 300 calibrations of 30 groups, one image of a new group each: 0.9 within four standard errors."""
    rng = np.random.default_rng(size)
    held = []
    for _ in range(300):
        logs, labels = _drawn(rng, 30, size)
        scores = CalibrationScores.of(logs, labels, np.arange(30).repeat(size)).scores
        one_class = calibration(scores.tolist(), [0] * len(labels), np.arange(30).repeat(size).tolist())
        limits = np.full(2, categories(one_class, 1, 0.9)[0].limit)
        new, true = _drawn(rng, 40, 1)
        held.append(prediction_sets(new, limits)[np.arange(40), true].mean())
    error = np.std(held) / math.sqrt(300)
    assert 0.9 - 4 * error <= np.mean(held) <= 0.9 + 1 / 31 + 4 * error  # at most one group more than promised


def test_what_is_decided() -> None:
    logs = np.log([[0.9, 0.1, 1e-9], [0.5, 0.5, 1e-9], [0.34, 0.33, 0.33]])
    sets = prediction_sets(logs, -np.log([0.4, 0.4, 0.4]))
    assert sets.tolist() == [[True, False, False], [True, True, False], [False, False, False]]
    assert decided(sets).tolist() == [0, -1, -1]


def test_it_reads_back() -> None:
    before = calibration([0.1, 1 / 3, 12.5], [0, 2, 1], [0, 0, 7])
    after = read_scores(scores_json(before), 3)
    for name in ("scores", "labels", "groups"):
        assert np.array_equal(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no calibration of a model"),
        ('{"format": 2, "labels": [], "groups": [], "scores": []}', "format 2, accepted is 1"),
        ('{"format": 1, "labels": [], "groups": [], "scores": []}', "as many of each"),
        ('{"format": 1, "labels": [3], "groups": [0], "scores": [0.5]}', r"labels in 0\.\.2"),
        ('{"format": 1, "labels": [true], "groups": [0], "scores": [0.5]}', r"labels in 0\.\.2"),
        ('{"format": 1, "labels": [0], "groups": [-1], "scores": [0.5]}', "groups >= 0"),
        ('{"format": 1, "labels": [0], "groups": [0], "scores": [NaN]}', "finite scores"),
        ('{"format": 1, "labels": [0], "groups": [0], "scores": [-0.5]}', "finite scores"),
        ('{"format": 1, "labels": [0, 1], "groups": [0], "scores": [0.5]}', "as many of each"),
    ],
)
def test_what_no_model_of_ours_has_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_scores(text, 3)
