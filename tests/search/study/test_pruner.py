"""Each name of search.pruner builds its rule."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from explain.evidence import Cost
from search.evidence.record import Evidence, ScorerEvidence
from search.settings.schema import SearchSettings
from search.study.pruning import build_promotion, build_pruner, expected_epochs


@pytest.mark.parametrize(
    ("name", "kind", "promotes"),
    [
        ("halving", optuna.pruners.NopPruner, True),
        ("median", optuna.pruners.MedianPruner, False),
        ("none", optuna.pruners.NopPruner, False),
    ],
)
def test_each_name_builds_its_rule(name: str, kind: type, promotes: bool) -> None:
    settings = SearchSettings(pruner=name)
    assert isinstance(build_pruner(settings), kind)
    rule = build_promotion(settings, 10)
    assert (rule is not None) is promotes
    if rule is not None:
        assert rule.at == (1, 2, 4, 8) and rule.factor == settings.halving_factor


def test_halving_expects_to_train_for_less() -> None:
    assert expected_epochs(SearchSettings(pruner="none"), 10, 30) == 300
    assert expected_epochs(SearchSettings(pruner="halving"), 10, 30) < 100
    assert expected_epochs(SearchSettings(pruner="halving"), 10, 0) == 0


@pytest.mark.parametrize(("trust", "trusts"), [("none", False), ("evidence", True)])
def test_evidence_is_trusted_where_that_is_asked_for(trust: str, trusts: bool) -> None:
    two, three = np.array([1.0, 0.0]), np.full(3, 1 / 3)
    stability = ScorerEvidence("cam_stability", "block", two, 0 * two, two, two, three, three, 2, Cost(1.0))
    rows = np.zeros(0, np.int64)
    evidence = Evidence(("a", "b"), {"cam_stability": stability}, (0, 2), "uniform", three, 2, Cost(1.0), rows, rows)
    rule = build_promotion(SearchSettings(trust=trust), 10, evidence)
    assert rule is not None and (rule.trust is not None) is trusts
    without = build_promotion(SearchSettings(trust=trust), 10)
    assert without is not None and without.trust is None
