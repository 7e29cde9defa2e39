"""The trivial scorer that always says "freeze everything"."""

from __future__ import annotations

import numpy as np

from explain.evidence.material import Material
from explain.evidence.null import no_null
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading

__all__ = ["DEEPEST", "deepest"]


def deepest(material: Material) -> Reading:
    """s(k) = 1 for k = L and 0 for all others.

    What evidence that cannot tell tasks apart comes to; any scorer must beat it. Range: [0, 1]. Null: none. Cost:
    nothing.
    """
    values = np.zeros(len(material.blocks) + 1)
    values[-1] = 1.0
    return Reading(values, *no_null(len(values)))


DEEPEST = Scorer("deepest", "depth", deepest)
