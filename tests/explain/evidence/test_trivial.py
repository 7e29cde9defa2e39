from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from explain.evidence import SCORERS, Material, depth_prior, depth_scores


def test_a_static_table_is_the_prior_but_for_the_floor(material: Material) -> None:
    table = np.array([1.0, 2.0, 3.0, 4.0])
    scores = SCORERS["static"](material, table=table)
    found = depth_prior(depth_scores(scores).values, eps=0.2)
    np.testing.assert_allclose(found.probabilities, 0.8 * table / 10 + 0.05)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ([0.5, 0.5], r"table must hold 4 probabilities, got shape \(2,\)"),
        ([0.5, 0.5, 0.0, 0.0], "table must hold positive probabilities"),
        ([0.5, 0.5, np.nan, 0.1], "table must hold positive probabilities"),
    ],
)
def test_a_bad_table_is_refused(material: Material, table: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SCORERS["static"](material, table=table)


@pytest.mark.parametrize("name", ["deepest", "monotone"])
def test_the_trivial_ones_prefer_to_freeze_everything(name: str, material: Material) -> None:
    scores = SCORERS[name](material)
    assert scores.cost.forward_passes == 0
    assert np.isnan(scores.z).all()
    found = depth_prior(depth_scores(scores).values, tau=3)
    assert found.mode == 3
    assert (np.diff(found.probabilities) >= 0).all()
    assert (np.diff(found.probabilities) > 0).all() == (name == "monotone")
