"""What every scorer declares, and how it is called."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from explain.evidence.material import Material
from explain.evidence.scores import Cost, Kind, Reading, Scores

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """A scorer of blocks or of freeze depths; positive always means "freeze".

    Attributes:
        kind: "block": a score for each of the L blocks; "depth": one for each of the L+1 freeze depths.
        function: Computes the reading from a `Material` and the scorer's own options. Its docstring fixes formula,
            source, range, sign, null and cost, before any result was seen.
        needs: Parts of a `Material` that it reads: "before", "after", "again", "drops/cam", "drops/control",
            "gradients".
        options: Those of its options that have no default: what the caller must know.
    """

    name: str
    kind: Kind
    function: Callable[..., Reading]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def can_read(self, material: Material) -> bool:
        """Whether the material holds all that this scorer needs."""
        return all(part in material.costs for part in self.needs)

    def __call__(self, material: Material, **options: Any) -> Scores:
        """Score the blocks or the freeze depths.

        Args:
            **options: The scorer's own, see its function.

        Raises:
            ValueError: The material lacks what the scorer needs, or an option is out of range.
        """
        for part in self.needs:
            if part not in material.costs:
                raise ValueError(
                    f"{self.name} needs {part!r}, which was not gathered; gathered: {list(material.costs)}"
                )
        start = time.perf_counter()
        reading = self.function(material, **options)
        cost = Cost(seconds=time.perf_counter() - start)
        for part in self.needs:
            cost += material.costs[part]
        return Scores(**vars(reading), scorer=self.name, kind=self.kind, blocks=material.blocks, cost=cost)
