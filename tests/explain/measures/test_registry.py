from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from explain import measures
from explain.measures import MAP_MEASURES, MEASURES, Measure


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_declares_itself(name: str) -> None:
    measure = MEASURES[name]
    assert measure.name == name
    assert measure.low < measure.high
    assert measure.direction in ("higher", "lower", "none")
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


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"direction": "up"}, "direction must be one of higher, lower, none, got 'up'"),
        ({"low": 2.0}, r"low must be below high, got 2\.0 and 1\.0"),
        ({"low": math.nan}, "low must be below high, got nan"),
        ({"paper": ""}, "paper must not be empty"),
        ({"takes": ()}, "takes must not be empty"),
    ],
)
def test_bad_declarations_are_refused(changes: dict[str, Any], match: str) -> None:
    good = {
        "name": "size", "low": 0.0, "high": 1.0, "direction": "none", "formula": "|M|", "paper": "own definition",
        "nan": "never", "takes": ("maps",), "function": torch.sum,
    }  # fmt: skip
    assert Measure(**good)(torch.ones(3)) == 3
    with pytest.raises(ValueError, match=match):
        Measure(**good | changes)
