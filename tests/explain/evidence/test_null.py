from __future__ import annotations

import numpy as np
import pytest

from explain.evidence.null import finite_mean, mean_and_spread, mismatches, permutations_within


def test_a_mismatch_leaves_nothing_in_its_place() -> None:
    found = mismatches(5, 200, np.random.default_rng(0))
    assert found.shape == (200, 5)
    assert (np.sort(found, axis=1) == np.arange(5)).all()
    assert (found != np.arange(5)).all()
    for other in range(1, 5):  # every partner is about as likely
        assert 20 < (found[:, 0] == other).sum() < 80
    assert mismatches(1, 200, np.random.default_rng(0)).shape == (0, 1)
    assert mismatches(2, 3, np.random.default_rng(0)).tolist() == [[1, 0]] * 3


def test_permutations_stay_within_their_groups() -> None:
    groups = np.array([0, 1, 0, 1, 1, 7])
    found = permutations_within(groups, 100, np.random.default_rng(0))
    assert (groups[found] == groups).all()
    assert (np.sort(found, axis=1) == np.arange(6)).all()
    assert 20 < (found[:, 0] == 2).sum() < 80


def test_mean_and_spread_leave_out_what_is_not_finite() -> None:
    assert mean_and_spread(np.array([1.0, np.nan, 3.0])) == pytest.approx((2, 2**0.5))
    assert mean_and_spread(np.array([0.1 + 0.2, 0.3])) == pytest.approx((0.3, 0))
    assert mean_and_spread(np.array([0.1 + 0.2, 0.3]))[1] == 0
    assert np.isnan(mean_and_spread(np.array([]))).all()
    assert np.isnan(mean_and_spread(np.array([1.0]))[1])
    np.testing.assert_array_equal(finite_mean(np.array([[1, np.nan, 3], [np.nan] * 3])), [2, np.nan])
