"""The first trials of a search: the default, and the same at freeze depths spread over the range."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.networks.backbones import build
from search.settings.schema import SpaceSettings
from search.trial.space import build_space, spread_depths


@pytest.mark.parametrize(
    ("default", "depths", "most", "expected"),
    [
        (4, (0, 8), 5, (4, 8, 2, 6, 0)),
        (4, (0, 8), 1, (4,)),
        (2, (0, 5), 5, (2, 5, 1, 3, 0)),
        (1, (0, 8), 3, (1, 4, 8)),
        (0, (0, 0), 5, (0,)),
        (2, (2, 3), 5, (2, 3)),
    ],
)
def test_depths_are_spread_from_the_middle(
    default: int, depths: tuple[int, int], most: int, expected: tuple[int, ...]
) -> None:
    assert spread_depths(default, depths, most) == expected


@given(st.integers(0, 60), st.integers(0, 60), st.data(), st.integers(1, 9))
def test_they_lie_in_the_range_and_differ(low: int, more: int, data: st.DataObject, most: int) -> None:
    default = data.draw(st.integers(low, low + more))
    found = spread_depths(default, (low, low + more), most)
    assert found[0] == default and len(set(found)) == len(found) <= most
    assert all(low <= depth <= low + more for depth in found)
    assert len(found) == min(most, more + 1) or more > 8


@pytest.mark.parametrize(
    ("settings", "depths", "in_full"),
    [
        (SpaceSettings(), (4, 8, 2), 3),
        (SpaceSettings(default_depths=1), (4,), 1),
        (SpaceSettings(default_freeze_depth=7, default_depths=2), (7, 4), 2),
        (SpaceSettings(freeze_depth=(6, 8)), (6, 7, 8), 3),
        (SpaceSettings(fostering=(0.0, 1.0)), (4, 4), 1),
    ],
)
def test_the_first_trials(settings: SpaceSettings, depths: tuple[int, ...], in_full: int) -> None:
    space = build_space(settings, build("efficientnet_lite0", classes=3, size=(32, 32)))
    assert tuple(params.freeze_depth for params in space.first) == depths
    assert {(params.optimizer, params.lr_factor) for params in space.first} == {("adam", 1.0)}
    assert space.in_full == in_full
