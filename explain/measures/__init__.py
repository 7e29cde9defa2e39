"""Measures of explanations, one a file.

`MEASURES` holds them by name; `MAP_MEASURES` those that need nothing but the maps. Each declares its range, direction,
formula, paper and NaN rule (see `Measure`) and returns one value per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from explain.measures.adcc import ADCC, adcc, adcc_from
from explain.measures.average_drop import AVERAGE_DROP, average_drop, drop_from
from explain.measures.coherency import COHERENCY, coherency
from explain.measures.complexity import COMPLEXITY, complexity
from explain.measures.dead_map_rate import DEAD_MAP_RATE, dead_map_rate
from explain.measures.dispersion import DISPERSION, dispersion
from explain.measures.elliptical_area import (
    ELLIPTICAL_AREA,
    ELLIPTICAL_AREA_12,
    elliptical_area,
    elliptical_area_12,
)
from explain.measures.energy_pointing import ENERGY_POINTING, energy_pointing
from explain.measures.entropy import ENTROPY, NORMALISED_ENTROPY, entropy, normalised_entropy
from explain.measures.increase import INCREASE, increase
from explain.measures.insertion_deletion import DELETION, INSERTION, deletion, insertion
from explain.measures.masking import Predict, masked_images, masked_probabilities
from explain.measures.measure import Direction, Measure
from explain.measures.pointing_game import POINTING_GAME, pointing_game
from explain.measures.relative_difference import RELATIVE_DIFFERENCE, relative_difference
from explain.measures.road import ROAD, road
from explain.measures.truth import boxes_to_masks

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

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            ENTROPY,
            NORMALISED_ENTROPY,
            ELLIPTICAL_AREA,
            ELLIPTICAL_AREA_12,
            DISPERSION,
            RELATIVE_DIFFERENCE,
            DEAD_MAP_RATE,
            COMPLEXITY,
            AVERAGE_DROP,
            INCREASE,
            COHERENCY,
            ADCC,
            ROAD,
            INSERTION,
            DELETION,
            POINTING_GAME,
            ENERGY_POINTING,
        )
    }
)
"""All measures by name."""

MAP_MEASURES: Mapping[str, Measure] = MappingProxyType(
    {name: measure for name, measure in MEASURES.items() if measure.takes == ("maps",)}
)
"""The measures of a map by itself, by name."""
