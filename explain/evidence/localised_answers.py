"""S4, faithful localisation while a trial runs: does what a block looks at carry the answer?"""

from __future__ import annotations

import numpy as np

from explain.evidence.null import finite_mean
from explain.evidence.trial_maps import TrialMaps
from explain.evidence.trial_statistic import TrialStatistic

__all__ = ["LOCALISED_ANSWERS", "localised_answers"]


def localised_answers(maps: TrialMaps) -> dict[str, float]:
    """f_b = mean over images of AvgDrop(A_b times the cell-shuffled map) - AvgDrop(A_b times the map).

    As E1 (`faithful_localisation`), but what is masked is the block's output A_b, not the image: nothing before the
    block runs again. Map and shuffled map have the same values at other places.

    Source: own definition on the Average Drop of Chattopadhyay et al. 2018, arXiv 1710.11063.
    Range: [-1, 1]. Sign: +; more speaks for the trial.
    Null: the statistics of the trials at a rung, permuted among them.
    Cost: two forward passes of the images from each compared block to the logits.

    Returns:
        By block; without the blocks whose maps are all dead or have a single cell.
    """
    found = {}
    for block, (shown, shuffled) in zip(maps.blocks, maps.drops.numpy(), strict=True):
        value = float(finite_mean(shuffled - shown))
        if np.isfinite(value):
            found[block] = value
    return found


LOCALISED_ANSWERS = TrialStatistic(
    "localised_answers", localised_answers, "what its {block} looks at carries the answer less"
)
