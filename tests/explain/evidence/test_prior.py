from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.evidence import prior
from explain.evidence.prior import depth_prior

NUMBERS = st.floats(-50, 50)
EPS = st.floats(0.2, 1)
TAU = st.floats(0, 5)
LAW = settings(deadline=None, max_examples=60)


@st.composite
def scored(draw: st.DrawFn, *, gaps: bool = True) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(2, 9))
    score = NUMBERS | st.just(float("nan")) if gaps else NUMBERS
    s = draw(st.lists(score, min_size=size, max_size=size))
    pi0 = draw(st.lists(st.floats(0.01, 1), min_size=size, max_size=size))
    return np.array(s), np.array(pi0)


@LAW
@given(scored(), TAU, EPS)
def test_it_is_a_distribution_above_its_floor(given: Any, tau: float, eps: float) -> None:
    s, pi0 = given
    found = depth_prior(s, tau=tau, eps=eps, pi0=pi0)
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert (found.probabilities >= eps / len(s) - 1e-12).all()
    assert found.probabilities[found.mode] == pytest.approx(found.probabilities.max())
    assert bool(found.notes) == bool(np.isnan(s).any())


@LAW
@given(scored(), TAU, EPS, NUMBERS)
def test_a_constant_changes_nothing(given: Any, tau: float, eps: float, constant: float) -> None:
    s, pi0 = given
    one, other = (depth_prior(x, tau=tau, eps=eps, pi0=pi0).probabilities for x in (s, s + constant))
    np.testing.assert_allclose(one, other, atol=1e-9)


@LAW
@given(scored(), TAU, EPS, st.randoms())
def test_renaming_the_depths_renames_the_prior(given: Any, tau: float, eps: float, random: Any) -> None:
    s, pi0 = given
    order = list(range(len(s)))
    random.shuffle(order)
    there = depth_prior(s[order], tau=tau, eps=eps, pi0=pi0[order]).probabilities
    np.testing.assert_allclose(there, depth_prior(s, tau=tau, eps=eps, pi0=pi0).probabilities[order], atol=1e-12)


@LAW
@given(scored(), EPS)
def test_without_trust_it_is_the_static_prior_on_its_floor(given: Any, eps: float) -> None:
    s, pi0 = given
    wanted = (1 - eps) * pi0 / pi0.sum() + eps / len(s)
    np.testing.assert_allclose(depth_prior(s, tau=0, eps=eps, pi0=pi0).probabilities, wanted, atol=1e-12)
    np.testing.assert_allclose(depth_prior(s * np.nan, eps=eps, pi0=pi0).probabilities, wanted, atol=1e-12)
    uniform = depth_prior(s, tau=0, eps=eps).probabilities
    np.testing.assert_allclose(uniform, np.full(len(s), 1 / len(s)), atol=1e-12)


@LAW
@given(scored(gaps=False), TAU)
def test_reversed_scores_reverse_the_preference(given: Any, tau: float) -> None:
    s, _ = given
    there, back = (depth_prior(x, tau=tau).probabilities for x in (s, -s))
    floor = 0.2 / len(s)
    # Softmax of s times softmax of -s is the same for every depth.
    product = (there - floor) * (back - floor)
    np.testing.assert_allclose(product, product[0], rtol=1e-6, atol=1e-12)
    mirrored = depth_prior(s[::-1], tau=tau).probabilities
    np.testing.assert_allclose(mirrored, there[::-1], atol=1e-12)


@LAW
@given(scored(gaps=False))
def test_a_higher_score_is_never_less_probable(given: Any) -> None:
    s, _ = given
    found = depth_prior(s).probabilities
    assert (np.diff(found[np.argsort(s, kind="stable")]) >= -1e-12).all()


def test_a_depth_without_score_keeps_its_share_and_the_rest_share_theirs() -> None:
    found = depth_prior([0.0, np.nan, np.log(3)], pi0=[0.25, 0.5, 0.25])
    np.testing.assert_allclose((found.probabilities - 0.2 / 3) / 0.8, [0.125, 0.5, 0.375])
    assert found.notes == ("no score for freeze depth 1: it keeps its share of the static prior",)


def test_huge_scores_leave_the_floor_and_no_warning() -> None:
    found = depth_prior([0.0, 1e5, -1e5, 0.0], tau=100)
    np.testing.assert_allclose(found.probabilities, [0.05, 0.85, 0.05, 0.05])
    impossible = depth_prior([0.0, 0.0], pi0=[0.0, 1.0])
    np.testing.assert_allclose(impossible.probabilities, [0.1, 0.9])
    np.testing.assert_allclose(depth_prior([0.0, np.nan], pi0=[0.0, 1.0]).probabilities, [0.1, 0.9])


@pytest.mark.parametrize(("scores", "mode"), [([0, 1, 0], 1), ([1, 0, 1], 2), ([0, 0, 0], 2), ([3, 0, 0], 0)])
def test_the_deeper_of_equals_is_the_mode(scores: list[float], mode: int) -> None:
    assert depth_prior(scores).mode == mode


@pytest.mark.parametrize(
    ("scores", "options", "match"),
    [
        ([1.0], {}, r"at least 2 depths, got shape \(1,\)"),
        ([[1.0, 2.0]], {}, "at least 2 depths"),
        ([0.0, np.inf], {}, "scores must be finite, or NaN where unknown"),
        ([0, 1], {"tau": -1}, "tau must be >= 0, got -1"),
        ([0, 1], {"tau": np.nan}, "tau must be >= 0, got nan"),
        ([0, 1], {"eps": 0.19}, r"eps must be between 0\.2 and 1, got 0\.19"),
        ([0, 1], {"eps": 1.1}, "eps must be between"),
        ([0, 1], {"eps": np.nan}, "eps must be between"),
        ([0, 1], {"pi0": [1, 1, 1]}, "pi0 must hold 2 probabilities"),
        ([0, 1], {"pi0": [-1, 2]}, "pi0 must hold numbers >= 0"),
        ([0, 1], {"pi0": [0, 0]}, "pi0 must hold numbers >= 0, one of them > 0"),
    ],
)
def test_bad_input_is_refused(scores: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        depth_prior(scores, **options)


def test_the_example_runs() -> None:
    results = doctest.testmod(prior)
    assert results.attempted > 0
    assert results.failed == 0
