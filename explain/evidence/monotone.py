"""The trivial scorer that always says "the deeper the better"."""

from __future__ import annotations

import numpy as np

from explain.evidence.material import Material
from explain.evidence.null import no_null
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading

__all__ = ["MONOTONE", "monotone"]


def monotone(material: Material) -> Reading:
    """s(k) = k / L.

    What evidence comes to that is positive in every block and is summed; any scorer must beat it. Range: [0, 1]. Null:
    none. Cost: nothing.
    """
    num_blocks = len(material.blocks)
    return Reading(np.arange(num_blocks + 1) / num_blocks, *no_null(num_blocks + 1))


MONOTONE = Scorer("monotone", "depth", monotone)
