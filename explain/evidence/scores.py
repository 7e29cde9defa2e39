"""What a scorer says, what chance would say, what it cost, and how it becomes a score of freeze depths.

L is the number of blocks; freeze depths k run from 0 to L. Positive always means "freeze".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Cost", "DepthScores", "Kind", "Numbers", "Reading", "Scores", "Unit", "Zero", "depth_scores"]

Numbers = NDArray[np.float64]
Kind = Literal["block", "depth"]
Unit = Literal["z", "value"]
Zero = Literal["centred"] | float | Sequence[float] | Numbers


@dataclass(frozen=True)
class Cost:
    """What something cost.

    Attributes:
        seconds: Wall time, >= 0.
        forward_passes: Images sent forward through the whole network.
        backward_passes: Images sent backward.
    """

    seconds: float = 0.0
    forward_passes: int = 0
    backward_passes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.forward_passes + other.forward_passes,
            self.backward_passes + other.backward_passes,
        )


@dataclass(frozen=True, eq=False)
class Reading:
    """What the function of a scorer returns: a number by block (L,) or by freeze depth (L+1,), and its null.

    Attributes:
        values: Scores, positive = freeze; NaN where there is none.
        null_mean: Mean of the score where the null holds, of the same shape; NaN where there is no null.
        null_spread: Its standard deviation, >= 0, of the same shape.
        notes: What the reader should know, a sentence each.
        details: Parts of the score by name, of the same shape.
    """

    values: Numbers
    null_mean: Numbers
    null_spread: Numbers
    notes: tuple[str, ...] = ()
    details: Mapping[str, Numbers] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, eq=False)
class Scores:
    """A scorer's reading of one network and one set of images.

    Attributes:
        kind: "block" (L values) or "depth" (L+1 values).
        values: Scores, positive = freeze; NaN where there is none; not comparable between scorers.
        null_mean: Mean of the score where the null holds; NaN for a scorer without null.
        null_spread: Its standard deviation.
        cost: Of the parts of the shared pass that it reads, fine-tuning included, and of its own arithmetic. Parts are
            shared, so costs of several scorers must not be added up (`Material.cost` counts each part once), and a
            scorer without gradients would cost less alone.
        notes: What the reader should know, a sentence each.
        details: Parts of the score by name.
    """

    scorer: str
    kind: Kind
    blocks: tuple[str, ...]
    values: Numbers
    null_mean: Numbers
    null_spread: Numbers
    cost: Cost
    notes: tuple[str, ...] = ()
    details: Mapping[str, Numbers] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        expected = (len(self.blocks) + (self.kind == "depth"),)
        for name in ("values", "null_mean", "null_spread"):
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} must have shape {expected}, got {getattr(self, name).shape}")

    @property
    def z(self) -> Numbers:
        """(value - null mean) / null spread, each against its own null; NaN where the spread is 0 or unknown.

        It says whether a score is more than chance. It does not say whether to freeze: most scores are positive in
        almost every block.
        """
        spread = np.where(self.null_spread > 0, self.null_spread, np.nan)
        return np.asarray((self.values - self.null_mean) / spread, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class DepthScores:
    """s(k) of freeze depths k = 0..L, defined up to a constant.

    Attributes:
        values: (L+1,), float64; NaN where nothing is known of a depth.
        notes: Which blocks or depths have no score.
    """

    values: Numbers
    notes: tuple[str, ...] = ()


def depth_scores(scores: Scores, *, unit: Unit | None = None, zero: Zero | None = None) -> DepthScores:
    """Turn scores of blocks, or of depths, into s(k), k = 0..L, with s up to a constant.

    Block scorers: s(0) = 0 and s(k) = sum over the first k blocks of (f_l - zero_l). What f_l is compared with
    decides everything: a significance null is not an indifference point, and the sum of scores that are positive in
    every block always says "freeze all". So blocks are centred, or measured against a zero point from elsewhere.
    Centred, s(0) = s(L) = 0: it ranks depths by *where* the score changes over the blocks, and does not choose between
    freezing all and nothing.

    Depth scorers: s(k) is the score of depth k itself; with a zero, s(k) = v(k) - sum over the first k blocks of
    zero_l.

    Args:
        unit: "z" (against the null of the block or depth) or "value"; None is "z" for blocks and "value" for depths.
        zero: Indifference point in that unit: "centred" (mean over the blocks that have a score, or for depths the
            mean step); a number for all blocks; or L numbers, measured gains of other tasks say. None is "centred" for
            blocks and 0 for depths.

    Returns:
        `DepthScores`. A block without a score makes no step, a depth without one stays NaN; both are noted. Where no
        block has a score, all is NaN.

    Raises:
        ValueError: Unknown unit, or a zero that is not finite or not of length 1 or L.
    """
    centred = isinstance(zero, str) and zero == "centred"
    unit = unit or ("z" if scores.kind == "block" else "value")
    if unit not in ("z", "value"):
        raise ValueError(f"unit must be z or value, got {unit!r}")
    given = scores.z if unit == "z" else scores.values
    known = np.isfinite(given)
    if scores.kind == "block":
        missing = [name for name, fine in zip(scores.blocks, known, strict=True) if not fine]
        notes = tuple(f"{scores.scorer}: block {name} has no {unit}, so it makes no step" for name in missing)
        if not known.any():
            return DepthScores(np.full(len(scores.blocks) + 1, np.nan), notes)
        steps = given - (given[known].mean() if zero is None or centred else _zero(zero, len(scores.blocks)))
        return DepthScores(np.concatenate([[0.0], np.cumsum(np.where(known, steps, 0.0))]), notes)
    notes = tuple(f"{scores.scorer}: freeze depth {k} has no {unit}" for k in np.flatnonzero(~known))
    depths = np.arange(len(given))
    if zero is None or known.sum() < 2:
        return DepthScores(np.where(known, given, np.nan), notes)
    if centred:
        first, last = depths[known][[0, -1]]
        return DepthScores(
            np.where(known, given - depths * (given[last] - given[first]) / (last - first), np.nan), notes
        )
    taken = np.concatenate([[0.0], np.cumsum(_zero(zero, len(scores.blocks)))])
    return DepthScores(np.where(known, given - taken, np.nan), notes)


def _zero(zero: ArrayLike | str | None, blocks: int) -> Numbers:
    if isinstance(zero, str) or zero is None:
        raise ValueError(f"zero must be centred, a number or {blocks} numbers, got {zero!r}")
    numbers = np.asarray(zero, dtype=np.float64)
    if numbers.shape not in ((), (blocks,)) or not np.isfinite(numbers).all():
        raise ValueError(f"zero must be centred, a finite number or {blocks} finite numbers, got {zero!r}")
    return np.broadcast_to(numbers, (blocks,))
