"""The thesis's Figure 11 as a scorer: how many images, how like the source, hence which of four strategies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from explain.evidence.material import Material
from explain.evidence.null import no_null
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading

__all__ = ["ADVISOR", "LARGE", "SIMILAR_DISTANCE", "SIMILAR_GAIN", "Advice", "advise", "advisor"]

LARGE = 1000.0
"""Training images a class from which data counts as large: ImageNet's; the thesis calls its own 529 not large."""

SIMILAR_GAIN = 0.5
"""Share of a random network's probe errors that pre-trained features must spare to count as similar (our choice)."""

SIMILAR_DISTANCE = 1.0
"""Source standard deviations by which features may be off in the mean to count as similar (our choice)."""

_EARLY = 0.6
"""The thesis's own answer for few and different images: three of five blocks frozen."""


@dataclass(frozen=True)
class Advice:
    """One of the four strategies.

    Attributes:
        strategy: in words.
        depth: the freeze depth it comes to, 0..L.
        similar: whether the images count as like the source.
        large: whether they count as many.
    """

    strategy: str
    depth: int
    similar: bool
    large: bool


def advise(blocks: int, *, images_per_class: float, gain: float, distance: float | None = None) -> Advice:
    """The strategy of Figure 11.

    Few and similar: features only. Few and different: the early blocks frozen, the rest trained. Many and similar:
    fine-tuning of everything. Many and different: training from scratch, which among freeze depths is 0 as well.

    Args:
        blocks: L, >= 1.
        images_per_class: training images a class, > 0.
        gain: 1 - e / e_random of the errors of linear probes on the pre-trained and on a random network's features,
            at most 1; NaN, where neither errs or there is no probe, counts as different.
        distance: mean over layers and channels of |mean - source mean| / source deviation, >= 0; None where unknown.
    """
    similar = not math.isnan(gain) and gain >= SIMILAR_GAIN and (distance is None or distance <= SIMILAR_DISTANCE)
    large = images_per_class >= LARGE
    if large:
        return Advice("fine-tune everything" if similar else "train from scratch", 0, similar, large)
    if similar:
        return Advice("features only", blocks, similar, large)
    return Advice("freeze the early blocks, train the rest", min(blocks, round(_EARLY * blocks)), similar, large)


def advisor(material: Material, *, images_per_class: float, gain: float, distance: float | None = None) -> Reading:
    """s(k) = -|k - k*| / L with k* the freeze depth of the advised strategy.

    Range: [-1, 0]. Null: none. Cost: one forward pass of the probe images through the network and one through a random
    one, made where the similarity is measured.
    """
    blocks = len(material.blocks)
    advice = advise(blocks, images_per_class=images_per_class, gain=gain, distance=distance)
    far = "unknown" if distance is None else f"{distance:.2f}"
    size = "large" if advice.large else "small"
    note = (
        f"{advice.strategy}: {images_per_class:.0f} images a class is {size}; probe gain {gain:.2f} and "
        f"feature distance {far} are {'similar' if advice.similar else 'different'}"
    )
    values = -np.abs(np.arange(blocks + 1) - advice.depth) / blocks
    return Reading(values, *no_null(blocks + 1), (note,))


ADVISOR = Scorer("advisor", "depth", advisor, options=("images_per_class", "gain", "distance"))
