"""What every scorer said about one task before its study began: kept with the study, drawn, and scored at its end.

L is the number of blocks; freeze depths k run from 0 to L. `search.evidence.collecting` makes it. Nothing here loads
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter

from explain.evidence import Cost
from explain.evidence.scores import Kind, Numbers

__all__ = ["Evidence", "ScorerEvidence", "TypicalMaps", "prior_mode"]

_Floats = Annotated[
    Numbers,
    PlainValidator(lambda values: np.array([math.nan if v is None else v for v in values], dtype=np.float64)),
    PlainSerializer(lambda values: [float(v) if math.isfinite(v) else None for v in values]),
]
_Rows = Annotated[
    NDArray[np.int64],
    PlainValidator(lambda values: np.array(values, dtype=np.int64)),
    PlainSerializer(lambda values: values.tolist()),
]
_Map = Annotated[
    NDArray[np.uint8],
    PlainValidator(lambda values: np.array(values, dtype=np.uint8)),
    PlainSerializer(lambda values: values.tolist()),
]
_Cost = Annotated[Cost, PlainSerializer(lambda cost: {**asdict(cost), "seconds": round(cost.seconds, 3)})]

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
    values: _Floats
    null_mean: _Floats
    null_spread: _Floats
    z: _Floats
    depth_scores: _Floats
    probabilities: _Floats
    preferred: int
    cost: _Cost
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
    mean: tuple[_Map, ...]
    example: tuple[_Map, ...]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence of one task, and the prior made of it.

    Attributes:
        scorers: by name, in the registry's order, then "evidence".
        depths: the space's range of freeze depths, both included.
        probabilities: the prior that `search.prior` chose, (L+1,), together 1.
        preferred: its mode within `depths`.
        cost: of everything together, probe fine-tuning included, each part once.
        training_rows: probe images that the heads and the fine-tuning saw.
        validation_rows: probe images that they did not see.
        notes: what the reader should know, a sentence each.
    """

    blocks: tuple[str, ...]
    scorers: Annotated[
        Mapping[str, ScorerEvidence],
        BeforeValidator(lambda stored: {raw["name"]: raw for raw in stored}),
        PlainSerializer(lambda scorers: list(scorers.values()), return_type=list[ScorerEvidence]),
    ]
    depths: tuple[int, int]
    prior: str
    probabilities: _Floats
    preferred: int
    cost: _Cost
    training_rows: _Rows
    validation_rows: _Rows
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

    def to_json(self) -> dict[str, Any]:
        """Plain values for a study's user attributes; NaN becomes None."""
        found: dict[str, Any] = _STORED.dump_python(self, mode="json")
        return found

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Evidence:
        """What `to_json` wrote."""
        return _STORED.validate_python(values)


_STORED = TypeAdapter(Evidence)
