"""Rank correlation, permutation test and regret of scorers on made-up tables, and the price of calling scores ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.depth_ranks import permutation_p, pooled, regrets, tau
from benchmarks.finished_tables import DepthTable
from benchmarks.table_search import Replay
from benchmarks.ties import chosen, later_epochs, standard_error
from search.significance import holm

K = np.arange(9.0)


def _table(best: int, splits: int, noise: float = 0.0) -> DepthTable:
    rng = np.random.default_rng(0)
    score = 0.9 - 0.03 * abs(K - best)
    curves = np.broadcast_to(score[:, None, None, None], (2, splits, 9, 2, 2, 4)) + rng.normal(
        0, noise, (2, splits, 9, 2, 2, 4)
    )
    ones = np.ones(9)
    return DepthTable("made up", 9, ("a", "b"), (1.0, 3.0), curves[0], curves[1], ones, ones, tuple(range(splits)))


def test_a_scorer_that_says_what_training_says_has_tau_one_and_its_reverse_minus_one() -> None:
    quality = -abs(K - 2.5) + 0.01 * K
    assert tau(quality, quality) == pytest.approx(1) and tau(-quality, quality) == pytest.approx(-1)
    unknown = quality.copy()
    unknown[4] = np.nan
    assert tau(unknown, quality) == pytest.approx(1)
    assert np.isnan(tau(np.zeros(9), quality))


def test_tasks_of_the_same_pictures_count_once_and_those_without_a_value_not_at_all() -> None:
    assert pooled({"neu_10": 1.0, "neu_40": 0.0, "simulated": 0.5}) == 0.5
    assert pooled({"neu_10": float("nan"), "simulated": 0.5}) == 0.5
    assert np.isnan(pooled({"neu_10": float("nan")}))


@pytest.mark.slow
def test_the_permutation_test_finds_what_is_there_and_not_what_is_not() -> None:
    rng = np.random.default_rng(1)
    quality = rng.random(9)
    same = {task: [(quality, quality)] * 3 for task in ("neu_10", "simulated", "magnetic_tile")}
    assert permutation_p(same, draws=200) < 0.02
    # The splits of one task are no independent witnesses: one task alone, however often split, proves little.
    noise = {"simulated": [(rng.permutation(9).astype(float), quality)] * 50}
    assert permutation_p(noise, draws=200) > 0.02


@pytest.mark.parametrize("splits", [1, 2, 3, 6])
@pytest.mark.parametrize(("favourite", "points"), [(3, 0.0), (5, 6.0), (0, 9.0)])
def test_regret_is_what_the_favourite_depth_loses(splits: int, favourite: int, points: float) -> None:
    lost, spread = regrets(_table(3, splits), [favourite] * splits)
    assert lost == pytest.approx([points] * splits)
    assert np.isnan(spread) if splits < 3 else spread == pytest.approx(0)


def test_the_best_depth_is_not_scored_on_the_splits_that_chose_it() -> None:
    """Where depths differ by noise alone, the chosen one is no better than any other on fresh splits."""
    table = _table(3, 40, noise=0.05)
    table.val[:], table.test[:] = table.val - table.val.mean((0, 2, 3, 4), keepdims=True), 0.5
    table.test[:] += np.random.default_rng(3).normal(0, 0.05, table.test.shape)
    lost, _ = regrets(table, [4] * 40)
    assert abs(np.mean(lost)) < 1.5


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(values: list[float]) -> None:
    pairs = list(zip(values, holm(values), strict=True))
    assert all(p <= q <= 1 for p, q in pairs)
    ordered = [q for _, q in sorted(pairs)]
    assert ordered == sorted(ordered)


def test_a_tie_goes_to_the_deeper_freeze_and_a_wider_one_never_to_a_shallower() -> None:
    empty = np.array([])
    run = Replay(empty, empty, 0.9, (), whole=((2, 0.95, 0.90), (5, 0.94, 0.88), (8, 0.90, 0.80)))
    assert [chosen(run, t) for t in (0.0, 0.011, 0.051)] == [(2, 0.90), (5, 0.88), (8, 0.80)]
    assert standard_error(0.9, 100) == pytest.approx(0.03) and standard_error(1.0, 100) == 0.0


def test_later_epochs_count_where_scores_are_equal() -> None:
    val = np.array([[[0.5, 0.9, 0.9], [0.1, 0.2, 0.3]], [[0.9, 0.9, 0.9], [0.9, 0.1, 0.1]]])
    test = np.array([[[0.0, 0.6, 0.7], [0.1, 0.2, 0.3]], [[0.5, 0.0, 0.8], [0.4, 0.0, 0.0]]])
    configurations, winner = later_epochs(val, test)
    assert configurations == pytest.approx([10, 30])
    assert winner == pytest.approx((30 + 0) / 2)  # both configurations of the deeper depth
