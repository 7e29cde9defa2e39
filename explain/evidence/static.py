"""The static table: a preference for depths that does not look at the images at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from explain.evidence.material import Material
from explain.evidence.null import no_null
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading

__all__ = ["STATIC", "static"]


def static(material: Material, *, table: ArrayLike) -> Reading:
    """s(k) = ln p(k) from a given table of probabilities of depths, from other data sets say.

    With a uniform pi0 and temperature 1 the prior is the table itself, but for the floor. A data-blind ranking is a
    strong competitor (arXiv 2510.06448).

    Range: (-inf, 0]. Null: none. Cost: nothing.

    Args:
        table: Probabilities > 0, (L+1,); divided by their sum.

    Raises:
        ValueError: Another length, or a probability that is not positive and finite (no depth is ever ruled out).
    """
    depths = len(material.blocks) + 1
    probabilities = np.asarray(table, dtype=np.float64)
    if probabilities.shape != (depths,):
        raise ValueError(f"table must hold {depths} probabilities, got shape {probabilities.shape}")
    if not (np.isfinite(probabilities) & (probabilities > 0)).all():
        raise ValueError(f"table must hold positive probabilities, got {probabilities.tolist()}")
    return Reading(np.log(probabilities / probabilities.sum()), *no_null(depths))


STATIC = Scorer("static", "depth", static, options=("table",))
