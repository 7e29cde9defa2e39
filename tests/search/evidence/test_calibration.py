"""Weights of the scorers: what is fitted from planted gains, what priors do with it, the file of this version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from explain.evidence import SCORERS, depth_prior
from search.evidence.calibration import NOISE, PARTS, Calibration, Row, fit, load, standardised

DEPTHS = 9
HUMP = 0.9 - 0.05 * ((np.arange(DEPTHS) - 3) / 4) ** 2


def rows(score: str, sign: float = 1.0, noise: float = 0.0) -> list[Row]:
    """Tasks whose best depth moves, and a scorer that knows it, or says the opposite."""
    rng = np.random.default_rng(0)
    made = []
    for number, best in enumerate((0, 2, 4, 6, 8)):
        gains = 0.9 - 0.1 * ((np.arange(DEPTHS) - best) / 8) ** 2
        made.append(Row(f"task{number}", {score: sign * gains * 7 + rng.normal(0, noise, DEPTHS)}, gains))
    return made


@pytest.mark.parametrize(("sign", "helps"), [(1.0, True), (-1.0, False)])
def test_a_scorer_is_trusted_only_if_it_is_right(sign: float, helps: bool) -> None:
    calibration = fit(rows("cka", sign))
    assert (calibration.taus["cka"] > 0.2) is helps
    if not helps:
        assert calibration.taus["cka"] == 0.0


def test_noise_gets_no_trust() -> None:
    rng = np.random.default_rng(1)
    made = [Row(row.task, {"logme": rng.normal(0, 1, DEPTHS)}, row.gains) for row in rows("logme") for _ in range(8)]
    assert fit(made).taus["logme"] <= 0.35


def test_the_combination_trusts_the_part_that_knows() -> None:
    rng = np.random.default_rng(2)
    good, noise, bad = PARTS
    made = [
        Row(row.task, {good: row.gains, noise: rng.normal(0, 1, DEPTHS), bad: -row.gains}, row.gains)
        for row in rows("cka")
        for _ in range(4)
    ]
    joint = fit(made).joint
    assert joint[good] > 3 * joint[noise]
    assert joint[bad] == 0.0


def test_the_static_table_is_the_shape_the_tasks_share() -> None:
    calibration = fit([Row("one", {}, HUMP), Row("two", {}, HUMP - 0.3)])
    table = calibration.static(DEPTHS - 1)
    assert table.sum() == pytest.approx(1.0)
    assert int(table.argmax()) == 3
    np.testing.assert_allclose(np.log(table / table[3]), (HUMP - HUMP[3]) / NOISE, atol=1e-9)
    assert int(calibration.static(4).argmax()) in (1, 2), "another number of blocks reads the same relative depths"
    assert calibration.static(16).sum() == pytest.approx(1.0)


def test_a_task_with_more_splits_counts_no_more() -> None:
    deep = Row("deep", {}, np.linspace(0.8, 0.82, DEPTHS))
    shallow = Row("shallow", {}, np.linspace(0.82, 0.8, DEPTHS))
    np.testing.assert_allclose(fit([deep, *[shallow] * 9]).static(8), np.full(9, 1 / 9), rtol=1e-6)


def test_priors_obey_the_floor_and_unknown_depths_keep_their_share() -> None:
    calibration = fit(rows("cka"))
    s = {"cka": np.array([np.nan, *np.arange(8.0)]), "deepest": np.array([0.0] * 8 + [1.0])}
    for name in ("cka", "deepest"):
        prior = calibration.prior(name, s, 0.3)
        assert prior.probabilities.sum() == pytest.approx(1)
        assert prior.probabilities.min() >= 0.3 / DEPTHS * (1 - 1e-9)
    assert calibration.prior("deepest", s, 0.2).mode == 8


def test_the_combination_ignores_parts_without_a_score() -> None:
    one, two, three = PARTS
    calibration = Calibration((1.0,) * 9, {}, {}, {one: 1.0, two: 1.0, three: 0.0}, (), "")
    s = {one: np.array([0.0, 1.0, np.nan]), two: np.full(3, np.nan)}
    np.testing.assert_allclose(calibration.combined(s), [-1.0, 1.0, np.nan])


def test_scores_that_do_not_differ_say_nothing() -> None:
    np.testing.assert_array_equal(standardised(np.array([3.0, 3.0, np.nan])), [0.0, 0.0, np.nan])
    np.testing.assert_array_equal(standardised(np.array([1.0, 3.0]), 2.0), [-0.5, 0.5])


def test_nothing_to_fit_on_is_refused() -> None:
    with pytest.raises(ValueError, match="rows must hold at least one split"):
        fit([])


def test_the_file_of_this_version_is_complete() -> None:
    calibration = load()
    assert set(calibration.joint) == set(PARTS)
    assert not [line for name in SCORERS for line in calibration.without_weight(name) if "not calibrated" in line]
    assert all(tau >= 0 for tau in (*calibration.taus.values(), *calibration.joint.values()))
    assert calibration.static(8).min() > 0
    assert calibration.about


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    calibration = fit(rows("cka"), "about this")
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(calibration.to_json()), encoding="utf-8")
    again = load(file)
    assert again.to_json() == calibration.to_json()
    assert again.fitted_on == tuple(f"task{number}" for number in range(5))


def test_a_scorer_without_a_calibration_has_no_weight_and_that_is_said() -> None:
    one, two = PARTS[:2]
    calibration = Calibration((1.0, 2.0, 3.0), {two: 0.0}, {}, {one: 1.0}, (), "")
    prior = calibration.prior(one, {one: np.array([9.0, 0.0, 0.0])}, 0.2)
    np.testing.assert_allclose(prior.probabilities, depth_prior([0.0] * 3, pi0=[1, 2, 3]).probabilities)
    assert prior.notes == (f"{one} is not calibrated and has no weight: its prior is the static one",)
    assert "did not help on other data sets" in calibration.without_weight(two)[0]
    s = {one: np.array([0.0, 1.0, 0.0]), two: np.array([5.0, 0.0, 0.0])}
    np.testing.assert_array_equal(calibration.combined(s), calibration.combined({one: s[one]}))
    assert calibration.without_weight("evidence") == tuple(
        f"{p} is not calibrated and has no weight" for p in PARTS[1:]
    )
