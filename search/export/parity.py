"""Whether a file answers as the model does. N images, K classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.decisions.conformal import decided, prediction_sets
from lightning_modules.decisions.costs import Costs
from lightning_modules.errors import InputError, printable

__all__ = ["Parity", "decisions"]

_SHOWN = 5

Outputs = Mapping[str, NDArray[np.generic]]


def decisions(outputs: Outputs, metadata: Mapping[str, Any]) -> list[str]:
    """What follows from the outputs of N images: by the metadata, as `docs/export.md` says.

    The most probable class; with `costs` the decision of the lowest expected cost; with `limits` the only class of the
    set, or by hand; with a distance limit by hand beyond it.
    """
    p = np.asarray(outputs["probabilities"], np.float64)
    classes, by_hand = metadata["classes"], metadata["by_hand"]
    found = [classes[place] for place in p.argmax(1)]
    if metadata["costs"] is not None:
        cheapest = Costs(np.array(metadata["costs"])).cheapest(p)
        found = [by_hand if place < 0 else classes[place] for place in cheapest.tolist()]
    if metadata["limits"] is not None:
        sets = prediction_sets(np.log(np.maximum(p, np.finfo(np.float64).tiny)), np.array(metadata["limits"]))
        found = [by_hand if place < 0 else classes[place] for place in decided(sets).tolist()]
    if metadata["distance_limit"] is not None:
        beyond = np.asarray(outputs["distance"]) > metadata["distance_limit"]
        found = [by_hand if far else one for one, far in zip(found, beyond.tolist(), strict=True)]
    return found


@dataclass
class Parity:
    """The comparison so far.

    Attributes:
        images: compared.
        difference: largest one of any probability.
        map_difference: largest one of a map's positions, as a share of the map's own maximum; `attention` is one too.
        changed: images whose class, or decision, is another: name, the model's, the file's.
    """

    metadata: Mapping[str, Any]
    images: int = 0
    difference: float = 0.0
    map_difference: float = 0.0
    changed: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, names: Sequence[str], model: Outputs, file: Outputs) -> None:
        """Compare the outputs of N images.

        Raises:
            InputError: an output that is not finite.
        """
        for outputs, whose in ((model, "model"), (file, "file")):
            if not np.isfinite(outputs["probabilities"]).all():
                raise InputError(f"the {whose}'s answers are not finite numbers")
        self.images += len(names)
        self.difference = max(self.difference, _largest(model["probabilities"], file["probabilities"]))
        for kind in ("map", "attention"):
            if kind in model:
                peak = np.maximum(np.asarray(model[kind]).max((1, 2)), 1e-6)[:, None, None]
                self.map_difference = max(self.map_difference, _largest(model[kind] / peak, file[kind] / peak))
        rule = {**self.metadata, "limits": None, "costs": None, "distance_limit": None}
        for decided_by in (rule, self.metadata):
            self.changed += [
                (name, one, other)
                for name, one, other in zip(
                    names, decisions(model, decided_by), decisions(file, decided_by), strict=True
                )
                if one != other and name not in {changed[0] for changed in self.changed}
            ]

    def refuse(self, *, max_difference: float, max_changed: float) -> None:
        """Refuse a file whose answers differ too much.

        Raises:
            InputError: says by how much, and which answers changed.
        """
        share = len(self.changed) / self.images
        if self.difference <= max_difference and share <= max_changed:
            return
        raise InputError(
            f"the file's answers differ from the model's on {self.images} images: {self.difference:.2g} in a "
            f"probability (max_difference={max_difference:g}), {len(self.changed)} decisions changed "
            f"(max_changed={max_changed:g} of them){''.join(self.lines())}; nothing is written"
        )

    def lines(self) -> Iterator[str]:
        """The first changed decisions, in words."""
        for name, one, other in self.changed[:_SHOWN]:
            yield f"; {printable(name)}: {one} became {other}"

    def plain(self) -> dict[str, Any]:
        """For `parity.json`."""
        return {
            "images": self.images,
            "max_probability_difference": self.difference,
            "max_map_difference": self.map_difference,
            "changed": [{"image": printable(name), "model": one, "file": other} for name, one, other in self.changed],
        }


def _largest(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max())
