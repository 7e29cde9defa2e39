"""All scorers by name, and what `search.prior` may make of each.

A new scorer is a file of this folder with a constant of its name in capitals, and a line here. Nothing is loaded
before a scorer is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from explain.evidence.scorer import Scorer

__all__ = ["ALIASES", "PRIORS", "SCORERS", "USES", "Use", "used_as"]

Use = Literal["part", "alone", "blind", "similarity", "shown"]
"""part: a prior of its own, and a summand of the prior "evidence"; alone: a prior of its own; blind: a prior that looks
at no image; similarity: one that compares the images with the source; shown: no prior, only reported."""

USES: Mapping[str, Use] = MappingProxyType(
    {
        "faithful_localisation": "part",
        "faithful_localisation_control": "shown",
        "cam_stability": "part",
        "train_validation_disagreement": "part",
        "agreement_of_change": "shown",
        "linear_probe": "alone",
        "logme": "alone",
        "auto_rgn": "alone",
        "cka": "alone",
        "static": "blind",
        "deepest": "blind",
        "monotone": "blind",
        "advisor": "similarity",
    }
)
_FILES = {"faithful_localisation_control": "faithful_localisation"}  # others have a file of their name

ALIASES = MappingProxyType({"probe": "linear_probe"})
"""Short name -> scorer."""


def used_as(*uses: Use) -> tuple[str, ...]:
    """The scorers of these uses, one use after the other."""
    return tuple(name for wanted in uses for name, use in USES.items() if use == wanted)


def _with_alias(name: str) -> tuple[str, ...]:
    return (name, *(short for short, scorer in ALIASES.items() if scorer == name))


PRIORS = (
    "uniform",
    *(one for name in used_as("blind", "similarity", "alone", "part") for one in _with_alias(name)),
    "evidence",
)
"""What `search.prior` may be: a scorer, its short name, "uniform", or "evidence" for all parts together."""


class _Scorers(Mapping[str, "Scorer"]):
    def __getitem__(self, name: str) -> Scorer:
        if name not in USES:
            raise KeyError(name)
        scorer: Scorer = getattr(import_module(f"explain.evidence.{_FILES.get(name, name)}"), name.upper())
        return scorer

    def __contains__(self, name: object) -> bool:
        return name in USES

    def __iter__(self) -> Iterator[str]:
        return iter(USES)

    def __len__(self) -> int:
        return len(USES)


SCORERS: Mapping[str, Scorer] = _Scorers()
"""Scorers by name: the evidence E1 to E4, its competitors, and the trivial ones."""
