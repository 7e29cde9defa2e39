"""Evidence by block: should it stay frozen?

One scorer a file, one protocol: a score for each block or each freeze depth, its null, its cost::

    from explain.evidence import SCORERS, depth_prior, gather

    material = gather(model, blocks, images, labels, training, after=fine_tuned)
    for scorer in SCORERS.values():
        if scorer.can_read(material) and not scorer.options:  # those with options ask for more
            scores = scorer(material)
            prior = depth_prior(scorer.depth_scores(scores).values)
            print(scores.scorer, scores.values, scores.z, scores.cost, prior.mode)

Importing this package loads neither torch nor anything else that is slow; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ finds, for type checkers and editors
    from explain.evidence.material import BlockRecord, Material, Pass
    from explain.evidence.prior import DepthPrior, depth_prior
    from explain.evidence.registry import SCORERS
    from explain.evidence.scorer import Scorer
    from explain.evidence.scores import Cost, DepthScores, Reading, Scores, depth_scores
    from explain.evidence.shared_pass import gather

__all__ = [
    "SCORERS",
    "BlockRecord",
    "Cost",
    "DepthPrior",
    "DepthScores",
    "Material",
    "Pass",
    "Reading",
    "Scorer",
    "Scores",
    "depth_prior",
    "depth_scores",
    "gather",
]

_HOMES = {
    "explain.evidence.material": ("BlockRecord", "Material", "Pass"),
    "explain.evidence.prior": ("DepthPrior", "depth_prior"),
    "explain.evidence.registry": ("SCORERS",),
    "explain.evidence.scorer": ("Scorer",),
    "explain.evidence.scores": ("Cost", "DepthScores", "Reading", "Scores", "depth_scores"),
    "explain.evidence.shared_pass": ("gather",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
