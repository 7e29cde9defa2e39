"""Measures of explanations: one value per image, float64, NaN where a measure is not defined.

`MEASURES` holds them by name; `MAP_MEASURES` those that need nothing but the maps. Each declares its range, direction,
formula, paper and NaN rule (see `Measure`). A file answers a question: how concentrated is the map (`concentration`),
does the model answer by what it shows (`faithfulness`), what happens when its pixels go (`perturbation`), does it lie
on the defect (`pointing`)?
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from explain.measures.concentration import (
    complexity,
    dead_map_rate,
    dispersion,
    elliptical_area,
    elliptical_area_12,
    entropy,
    normalised_entropy,
    relative_difference,
)
from explain.measures.faithfulness import (
    adcc,
    adcc_from,
    average_drop,
    coherency,
    drop_from,
    increase,
)
from explain.measures.masking import Predict, masked_images, masked_probabilities
from explain.measures.measure import DECLARED, Direction, Measure
from explain.measures.perturbation import deletion, insertion, road
from explain.measures.pointing import boxes_to_masks, energy_pointing, pointing_game

__all__ = [
    "MAP_MEASURES",
    "MEASURES",
    "Direction",
    "Measure",
    "Predict",
    "adcc",
    "adcc_from",
    "average_drop",
    "boxes_to_masks",
    "coherency",
    "complexity",
    "dead_map_rate",
    "deletion",
    "dispersion",
    "drop_from",
    "elliptical_area",
    "elliptical_area_12",
    "energy_pointing",
    "entropy",
    "increase",
    "insertion",
    "masked_images",
    "masked_probabilities",
    "normalised_entropy",
    "pointing_game",
    "relative_difference",
    "road",
]

MEASURES: Mapping[str, Measure] = MappingProxyType(dict(DECLARED))
"""All measures by name."""

MAP_MEASURES: Mapping[str, Measure] = MappingProxyType(
    {name: measure for name, measure in MEASURES.items() if measure.takes == ("maps",)}
)
"""The measures of a map by itself, by name."""
