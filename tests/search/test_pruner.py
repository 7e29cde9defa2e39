"""Each name of search.pruner builds its rule."""

from __future__ import annotations

import optuna
import pytest

from search.pruner import build_promotion, build_pruner, expected_epochs
from search.settings import SearchSettings


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
