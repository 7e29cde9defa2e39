from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.evidence import Cost, Scores, depth_scores

LAW = settings(deadline=None, max_examples=50)
VALUES = st.lists(st.floats(-9, 9), min_size=1, max_size=8)


def block_scores(values: Any, *, spread: float = 1.0, mean: float = 0.0) -> Scores:
    values = np.array(values, dtype=float)
    names = tuple(f"b{number}" for number in range(len(values)))
    null = np.full(len(values), mean), np.full(len(values), spread)
    return Scores(values, *null, scorer="mine", kind="block", blocks=names, cost=Cost())


def curve(values: Any) -> Scores:
    values = np.array(values, dtype=float)
    names = tuple(f"b{number}" for number in range(len(values) - 1))
    null = np.zeros(len(values)), np.ones(len(values))
    return Scores(values, *null, scorer="curve", kind="depth", blocks=names, cost=Cost())


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3) + Cost(0.5, 10, 20) == Cost(1.5, 12, 23)


def test_z_is_against_each_blocks_own_null() -> None:
    null = np.array([1.0, 0.0, np.nan]), np.array([2.0, 0.0, np.nan])
    values = np.array([5.0, 1.0, 1.0])
    scores = Scores(values, *null, scorer="mine", kind="block", blocks=("a", "b", "c"), cost=Cost())
    np.testing.assert_array_equal(scores.z, [2.0, np.nan, np.nan])


def test_blocks_are_summed_against_their_mean() -> None:
    scores = block_scores([1.0, 3.0, 5.0])
    np.testing.assert_allclose(depth_scores(scores).values, [0, -2, -2, 0])


def test_blocks_count_by_their_z() -> None:
    scores = block_scores([2.0, 4.0], spread=0.5, mean=1.0)
    np.testing.assert_allclose(depth_scores(scores).values, [0, -2, 0])


@LAW
@given(VALUES, st.floats(-9, 9))
def test_what_all_blocks_have_in_common_says_nothing(values: list[float], constant: float) -> None:
    one, other = (depth_scores(block_scores(np.array(values) + shift)).values for shift in (0, constant))
    np.testing.assert_allclose(one, other, atol=1e-9)
    assert one[0] == 0
    assert one[-1] == pytest.approx(0, abs=1e-9)


@LAW
@given(VALUES, st.floats(-3, 3))
def test_depth_scores_scale_with_the_blocks(values: list[float], factor: float) -> None:
    one, other = (depth_scores(block_scores(np.array(values) * by)).values for by in (1, factor))
    np.testing.assert_allclose(one * factor, other, atol=1e-9)


def test_a_block_without_score_makes_no_step() -> None:
    found = depth_scores(block_scores([1.0, np.nan, 3.0]))
    np.testing.assert_allclose(found.values, [0, -1, -1, 0])
    assert found.notes == ("mine: block b1 has no z, so it makes no step",)
    nothing = depth_scores(block_scores([1.0, 2.0], spread=0.0))
    assert np.isnan(nothing.values).all()
    assert len(nothing.notes) == 2


def test_depths_are_read_directly() -> None:
    scores = curve([0.2, 0.4, np.nan, 0.8])
    found = depth_scores(scores)
    np.testing.assert_allclose(found.values, [0.2, 0.4, np.nan, 0.8])
    assert found.notes == ("curve: freeze depth 2 has no value",)
