"""All scorers by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from explain.evidence.advisor import ADVISOR
from explain.evidence.agreement_of_change import AGREEMENT_OF_CHANGE
from explain.evidence.auto_rgn import AUTO_RGN
from explain.evidence.cam_stability import CAM_STABILITY
from explain.evidence.cka import CKA
from explain.evidence.deepest import DEEPEST
from explain.evidence.faithful_localisation import FAITHFUL_LOCALISATION, FAITHFUL_LOCALISATION_CONTROL
from explain.evidence.linear_probe import LINEAR_PROBE
from explain.evidence.logme import LOGME
from explain.evidence.monotone import MONOTONE
from explain.evidence.scorer import Scorer
from explain.evidence.static import STATIC
from explain.evidence.train_validation_disagreement import TRAIN_VALIDATION_DISAGREEMENT

__all__ = ["SCORERS"]

SCORERS: Mapping[str, Scorer] = MappingProxyType(
    {
        scorer.name: scorer
        for scorer in (
            FAITHFUL_LOCALISATION,
            FAITHFUL_LOCALISATION_CONTROL,
            CAM_STABILITY,
            TRAIN_VALIDATION_DISAGREEMENT,
            AGREEMENT_OF_CHANGE,
            LINEAR_PROBE,
            LOGME,
            AUTO_RGN,
            CKA,
            STATIC,
            DEEPEST,
            MONOTONE,
            ADVISOR,
        )
    }
)
"""Scorers by name: the evidence E1 to E4, its competitors, and the trivial ones."""
