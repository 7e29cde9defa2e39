from __future__ import annotations

import dataclasses

import pytest

from explain import measures
from explain.measures import MAP_MEASURES, MEASURES


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_declares_itself(name: str) -> None:
    measure = MEASURES[name]
    assert measure.name == name
    assert measure.low < measure.high
    assert measure.direction in ("higher", "lower", "none")
    assert measure.formula and measure.nan and measure.takes
    assert "arXiv" in measure.paper or "own definition" in measure.paper
    assert measure.function in vars(measures).values()
    assert (measure.function.__doc__ or "").count("float64, (N,)") == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure.name = "other"  # type: ignore[misc]


def test_the_registry_is_complete_and_fixed() -> None:
    assert set(MAP_MEASURES) == {
        "ce", "ce_normalised", "ca", "ca12", "cd", "relative_difference", "dead_map_rate", "complexity",
    }  # fmt: skip
    assert set(MEASURES) - set(MAP_MEASURES) == {
        "average_drop", "increase", "coherency", "adcc", "road", "insertion", "deletion", "pointing_game",
        "energy_pointing",
    }  # fmt: skip
    with pytest.raises(TypeError):
        MEASURES["ce"] = MEASURES["cd"]  # type: ignore[index]
