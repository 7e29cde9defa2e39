"""All scorers by name. A scorer is loaded when it is asked for, so that the settings list the names without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explain.evidence.scorer import Scorer

__all__ = ["COMPETITORS", "EVIDENCE", "SCORERS", "TRIVIAL"]

EVIDENCE = (
    "faithful_localisation",
    "faithful_localisation_control",
    "cam_stability",
    "train_validation_disagreement",
    "agreement_of_change",
)
COMPETITORS = ("linear_probe", "logme", "auto_rgn", "cka")
TRIVIAL = ("static", "deepest", "monotone", "advisor")


class _Scorers(Mapping[str, "Scorer"]):
    """Each lies in the file of its name, as a constant of its name; a control lies beside what it controls."""

    _names = (*EVIDENCE, *COMPETITORS, *TRIVIAL)

    def __getitem__(self, name: str) -> Scorer:
        if name not in self._names:
            raise KeyError(name)
        module = import_module(f"explain.evidence.{name.removesuffix('_control')}")
        scorer: Scorer = getattr(module, name.upper())
        return scorer

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


SCORERS: Mapping[str, Scorer] = _Scorers()
"""Scorers by name: the evidence E1 to E4, its competitors, and the trivial ones."""
