"""What a scorer says, what chance would say, what it cost, and how it becomes a score of freeze depths.

L is the number of blocks; freeze depths k run from 0 to L. Positive always means "freeze".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cost", "DepthScores", "Kind", "Numbers", "Reading", "Scores", "depth_scores"]

Numbers = NDArray[np.float64]
Kind = Literal["block", "depth"]


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
        values: Scores, positive = freeze; NaN where there is none; not comparable between scorers.
        null_mean: Mean of the score where the null holds, of the same shape; NaN where there is no null.
        null_spread: Its standard deviation, >= 0, of the same shape.
        notes: What the reader should know, a sentence each.
    """

    values: Numbers
    null_mean: Numbers
    null_spread: Numbers
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores(Reading):
    """A scorer's reading of one network and one set of images.

    Attributes:
        kind: "block" (L values) or "depth" (L+1 values).
        cost: Of the parts of the shared pass that it reads, fine-tuning included, and of its own arithmetic. Parts are
            shared, so costs of several scorers must not be added up (`Material.cost` counts each part once), and a
            scorer without gradients would cost less alone.
    """

    scorer: str
    kind: Kind
    blocks: tuple[str, ...]
    cost: Cost

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


def depth_scores(scores: Scores) -> DepthScores:
    """Turn scores of blocks, or of depths, into s(k), k = 0..L, with s up to a constant.

    Block scorers: s(0) = 0 and s(k) = sum over the first k blocks of (z_l - mean of z over the blocks that have one).
    What z_l is compared with decides everything: a significance null is not an indifference point, and the sum of
    scores that are positive in every block always says "freeze all". So blocks are centred, s(0) = s(L) = 0: it ranks
    depths by *where* the score changes over the blocks, and does not choose between freezing all and nothing.

    Depth scorers: s(k) is the score of depth k itself.

    Returns:
        `DepthScores`. A block without a score makes no step, a depth without one stays NaN; both are noted. Where no
        block has a score, all is NaN.
    """
    if scores.kind == "depth":
        known = np.isfinite(scores.values)
        notes = tuple(f"{scores.scorer}: freeze depth {k} has no value" for k in np.flatnonzero(~known))
        return DepthScores(np.where(known, scores.values, np.nan), notes)
    known = np.isfinite(scores.z)
    missing = [name for name, fine in zip(scores.blocks, known, strict=True) if not fine]
    notes = tuple(f"{scores.scorer}: block {name} has no z, so it makes no step" for name in missing)
    if not known.any():
        return DepthScores(np.full(len(scores.blocks) + 1, np.nan), notes)
    steps = np.where(known, scores.z - scores.z[known].mean(), 0.0)
    return DepthScores(np.concatenate([[0.0], np.cumsum(steps)]), notes)
