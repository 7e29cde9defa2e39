"""What every scorer said about one task before its study began: kept with the study, drawn, and scored at its end.

L is the number of blocks; freeze depths k run from 0 to L. `search.evidence.collecting` makes it. Nothing here loads
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explain.evidence import Cost
from explain.evidence.scores import Kind, Numbers

__all__ = ["Evidence", "ScorerEvidence", "TypicalMaps", "prior_mode"]

_NOISE = 0.02  # of the probability: depths this close are equals, and the deeper one is cheaper


def prior_mode(prior: Numbers, low: int, high: int) -> int:
    """The most probable freeze depth in low..high; of depths within 2 % of its probability the deepest, cheapest one.

    Args:
        prior: probabilities, (L+1,).
        low: shallowest depth of the space.
        high: deepest one, included.
    """
    inside = prior[low : high + 1]
    return low + int(np.flatnonzero(inside >= (1 - _NOISE) * inside.max())[-1])


@dataclass(frozen=True, eq=False)
class ScorerEvidence:
    """What one scorer said, and the prior it would give.

    Attributes:
        name: of the scorer: a key of `explain.evidence.SCORERS`, or "evidence" for the combination of E1, E2 and E3.
        kind: "block": `values`, `null_mean`, `null_spread` and `z` hold a number for each of the L blocks; "depth": for
            each of the L+1 freeze depths.
        values: scores, positive = freeze; NaN where there is none.
        null_mean: mean of the score where the null holds; NaN without a null.
        null_spread: its standard deviation.
        z: (value - null mean) / null spread; NaN where the spread is 0 or unknown.
        depth_scores: s(k), (L+1,), blocks centred; NaN where nothing is known of a depth.
        probabilities: pi(k), (L+1,), together 1, each at least the floor / (L+1).
        preferred: the mode of `probabilities` within the space's range of depths.
        cost: of all that this scorer alone would need. Scorers share parts: never add these.
        notes: what the reader should know, a sentence each.
    """

    name: str
    kind: Kind
    values: Numbers
    null_mean: Numbers
    null_spread: Numbers
    z: Numbers
    depth_scores: Numbers
    probabilities: Numbers
    preferred: int
    cost: Cost
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TypicalMaps:
    """Maps to show: LayerCAM of the true class before the probe fine-tuning, of validation images of one class.

    Attributes:
        label: the most frequent class among the probe's validation images.
        row: of one of its images, in the task's index.
        mean: by block, the mean over the class's images, uint8, 255 = its greatest value, (h, w).
        example: by block, the map of the image `row`, likewise.
    """

    label: int
    row: int
    mean: tuple[NDArray[np.uint8], ...]
    example: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence of one task, and the prior made of it.

    Attributes:
        blocks: names of the L blocks, first to last.
        scorers: by name, in the registry's order, then "evidence".
        depths: the space's range of freeze depths, both included.
        prior: value of `search.prior`.
        probabilities: the prior that `search.prior` chose, (L+1,), together 1.
        preferred: its mode within `depths`.
        cost: of everything together, probe fine-tuning included, each part once.
        training_rows: probe images that the heads and the fine-tuning saw.
        validation_rows: probe images that they did not see.
        maps: typical maps to show.
        notes: what the reader should know, a sentence each.
    """

    blocks: tuple[str, ...]
    scorers: Mapping[str, ScorerEvidence]
    depths: tuple[int, int]
    prior: str
    probabilities: Numbers
    preferred: int
    cost: Cost
    training_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    maps: TypicalMaps | None = None
    notes: tuple[str, ...] = ()

    @property
    def steering(self) -> Numbers | None:
        """What early trials draw their depth from, (L+1,); None where `search.prior` leaves it to the sampler."""
        return None if self.prior == "uniform" else self.probabilities

    def describe(self) -> str:
        """The prior in one line."""
        low, high = self.depths
        if self.prior == "uniform":
            return f"Prior over freeze depths {low}..{high}: uniform, left to the sampler."
        inside = self.probabilities[low : high + 1]
        shares = " ".join(f"{share:.0%}" for share in inside / inside.sum())
        words = f"Prior over freeze depths {low}..{high}: {self.prior}, {shares}; most probable: {self.preferred}."
        return " ".join([words, *(f"{note}." for note in self.notes)])

    def _repr_html_(self) -> str:
        from search.notebook import evidence_html

        return evidence_html(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a study's user attributes; NaN becomes None."""
        return {
            "blocks": list(self.blocks),
            "scorers": [_scorer_to_json(scorer) for scorer in self.scorers.values()],
            "depths": list(self.depths),
            "prior": self.prior,
            "probabilities": _plain(self.probabilities),
            "preferred": self.preferred,
            "cost": _cost_to_json(self.cost),
            "training_rows": self.training_rows.tolist(),
            "validation_rows": self.validation_rows.tolist(),
            "maps": None if self.maps is None else _maps_to_json(self.maps),
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Evidence:
        """What `to_json` wrote."""
        scorers = [_scorer_from_json(raw) for raw in values["scorers"]]
        low, high = values["depths"]
        return Evidence(
            blocks=tuple(values["blocks"]),
            scorers={scorer.name: scorer for scorer in scorers},
            depths=(low, high),
            prior=values["prior"],
            probabilities=_numbers(values["probabilities"]),
            preferred=values["preferred"],
            cost=Cost(**values["cost"]),
            training_rows=np.array(values["training_rows"], dtype=np.int64),
            validation_rows=np.array(values["validation_rows"], dtype=np.int64),
            maps=None if values["maps"] is None else _maps_from_json(values["maps"]),
            notes=tuple(values["notes"]),
        )


_ARRAYS = ("values", "null_mean", "null_spread", "z", "depth_scores", "probabilities")


def _plain(numbers: Numbers) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in numbers]


def _numbers(values: list[float | None]) -> Numbers:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _cost_to_json(cost: Cost) -> dict[str, float]:
    return {
        "seconds": round(cost.seconds, 3),
        "forward_passes": cost.forward_passes,
        "backward_passes": cost.backward_passes,
    }


def _scorer_to_json(scorer: ScorerEvidence) -> dict[str, Any]:
    return {
        "name": scorer.name,
        "kind": scorer.kind,
        **{name: _plain(getattr(scorer, name)) for name in _ARRAYS},
        "preferred": scorer.preferred,
        "cost": _cost_to_json(scorer.cost),
        "notes": list(scorer.notes),
    }


def _scorer_from_json(raw: Mapping[str, Any]) -> ScorerEvidence:
    arrays = {name: _numbers(raw[name]) for name in _ARRAYS}
    return ScorerEvidence(
        name=raw["name"],
        kind=raw["kind"],
        preferred=raw["preferred"],
        cost=Cost(**raw["cost"]),
        notes=tuple(raw["notes"]),
        **arrays,
    )


def _maps_to_json(maps: TypicalMaps) -> dict[str, Any]:
    return {
        "label": maps.label,
        "row": maps.row,
        "mean": [one.tolist() for one in maps.mean],
        "example": [one.tolist() for one in maps.example],
    }


def _maps_from_json(raw: Mapping[str, Any]) -> TypicalMaps:
    mean, example = (tuple(np.array(one, dtype=np.uint8) for one in raw[name]) for name in ("mean", "example"))
    return TypicalMaps(raw["label"], raw["row"], mean, example)
