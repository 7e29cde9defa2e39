"""What the shared pass leaves behind for all scorers: plain tensors on the CPU.

Shapes: N probe images, V of them for validation, K classes, L blocks; block l has C channels at h x w.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from explain.evidence.scores import Cost

__all__ = ["BlockRecord", "Maps", "Material", "Pass"]

Maps = Literal["cam", "control"]
"""Which maps a scorer reads: those of the CAM method, or the gradient-free control, the mean of |A|."""


@dataclass(frozen=True, eq=False)
class BlockRecord:
    """What is kept of one block; a map that was not finite is kept as a dead one (all zero).

    Attributes:
        cam: Maps of each image's true class at the block's resolution, float32, non-negative, (N, h, w).
        control: Mean over channels of |A|, which depends on neither gradients nor classes, (N, h, w).
        features: Mean over positions of A, float32, (N, C).
    """

    cam: Tensor
    control: Tensor
    features: Tensor

    def maps(self, which: Maps) -> Tensor:
        """The maps called "cam" or "control", (N, h, w)."""
        if which not in ("cam", "control"):
            raise ValueError(f"maps must be cam or control, got {which!r}")
        return self.cam if which == "cam" else self.control


@dataclass(frozen=True, eq=False)
class Pass:
    """One network's answers to all probe images.

    Attributes:
        records: One a block, first to last.
        logits: Pre-softmax outputs, float32, (N, K).
    """

    records: tuple[BlockRecord, ...]
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Material:
    """All that the scorers read.

    Attributes:
        labels: True classes, int64, (N,).
        training: Which images are training images; the others are for validation; bool, (N,).
        method: CAM method of the maps.
        inputs: Mean over positions of the images, the features at freeze depth 0, float32, (N, channels).
        before: Pass of the network with a fitted head on pre-trained blocks.
        after: Pass after a short probe fine-tuning of everything, or None.
        again: Pass after another such fine-tuning from another seed, or None.
        drops: "cam" and "control": Average Drop of each validation image by block, float64, (L, 1 + R, V); first of
            the map, then of R maps with the cells shuffled; NaN for a dead map. Empty if not gathered.
        gradients: ||g|| / ||theta|| by block, float64, (1 + P, L); first with the true labels, then with P permuted
            ones; NaN for a block without parameters. None if not gathered.
        costs: Cost of each part that was gathered, by the names that `Scorer.needs` uses. "after" and "again" include
            the fine-tuning.
    """

    blocks: tuple[str, ...]
    labels: Tensor
    training: Tensor
    method: str
    inputs: Tensor
    before: Pass
    after: Pass | None = None
    again: Pass | None = None
    drops: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Tensor | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)

    def fine_tuned(self, part: Literal["after", "again"]) -> Pass:
        """The pass called "after" or "again".

        Raises:
            ValueError: It was not gathered.
        """
        found = self.after if part == "after" else self.again
        if found is None:
            raise ValueError(f"the pass {part!r} was not gathered")
        return found

    @property
    def cost(self) -> Cost:
        """Of everything together, each part once."""
        return sum(self.costs.values(), Cost())

    @property
    def depth_features(self) -> tuple[Tensor, ...]:
        """Pooled features at freeze depths 0..L, (N, C) each: the image's, then each block's."""
        return (self.inputs, *(record.features for record in self.before.records))
