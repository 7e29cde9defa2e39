"""The epochs at which trials are compared: what a worker and the driver both know of the promotion rule."""

from __future__ import annotations

__all__ = ["ENOUGH_STEPS", "FEWEST_STEPS", "rungs"]

FEWEST_STEPS = 4
"""Training steps before any rung: with sixty images, an epoch is two steps, and scores after two are noise."""
ENOUGH_STEPS = 8
"""After as many steps trials may be compared however long they are going to be."""


def rungs(epochs: int, batches: int = ENOUGH_STEPS) -> tuple[int, ...]:
    """Epochs at which trials are compared: 1, 2, 4, ... below `epochs`; dense early, where most can be told apart.

    Where an epoch has few steps the first rungs are left out: none comes before an eighth of a trial's steps, taken as
    `FEWEST_STEPS` at least and `ENOUGH_STEPS` at most. A network that must be thawed throughout begins below a frozen
    one and climbs late: compared after six of sixty steps it was stopped, where the best depth is 0
    (docs/results.md, "Where the first rung lies").

    Args:
        batches: training steps in an epoch.
    """
    first = min(max(epochs * batches / 8, FEWEST_STEPS), ENOUGH_STEPS)
    return tuple(2**i for i in range(max(epochs - 1, 0).bit_length()) if 2**i * batches >= first)
