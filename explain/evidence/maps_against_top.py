"""S3: does a block look where the top block looks?"""

from __future__ import annotations

from explain.attribution import upsample
from explain.evidence.map_correlation import agreements
from explain.evidence.trial_maps import TrialMaps
from explain.evidence.trial_statistic import TrialStatistic

__all__ = ["MAPS_AGAINST_TOP", "maps_against_top"]


def maps_against_top(maps: TrialMaps) -> dict[str, float]:
    """f_b = mean over images of Pearson(M_b, M_B at the resolution of M_b), for each block b below the top block B.

    Both explain the same answer. Where they differ, the blocks between have learnt to read the lower one otherwise
    than it was trained to be read.

    Source: own definition on Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391).
    Range: [-1, 1]. Sign: +; more speaks for the trial.
    Null: the statistics of the trials at a rung, permuted among them.
    Cost: the one pass of `gather_trial_maps`.

    Returns:
        By block but the top one. Images with a dead or constant map are left out; so is a block where that leaves none.
    """
    below = maps.maps[:-1]
    tops = [upsample(maps.maps[-1], (one.shape[1], one.shape[2])) for one in below]
    return agreements(maps.blocks[:-1], below, tops)


MAPS_AGAINST_TOP = TrialStatistic(
    "maps_against_top", maps_against_top, "its {block} looks elsewhere than its last block"
)
