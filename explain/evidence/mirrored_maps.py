"""S1: does a block look at the same place when the picture is mirrored?"""

from __future__ import annotations

from explain.evidence.map_correlation import agreements
from explain.evidence.trial_maps import TrialMaps
from explain.evidence.trial_statistic import TrialStatistic

__all__ = ["MIRRORED_MAPS", "mirrored_maps"]


def mirrored_maps(maps: TrialMaps) -> dict[str, float]:
    """f_b = mean over images of Pearson(M_b(x), mirror(M_b(mirror(x)))), Grad-CAM of the true class.

    What a defect is does not depend on the side from which it is seen, so a map that does shows what the trial has
    learnt by heart. Only where views are mirrored: then the mirror image is a picture of the same class.

    Source: own definition on Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391); equivariance as a label-free measure
    of generalisation after Deng et al. 2022, arXiv 2207.07065.
    Range: [-1, 1]. Sign: +; more speaks for the trial.
    Null: the statistics of the trials at a rung, permuted among them.
    Cost: the one pass of `gather_trial_maps`.

    Returns:
        By block. Images whose map is dead or constant are left out; a block where that leaves none is too.
    """
    return agreements(maps.blocks, maps.maps, maps.mirrored)


MIRRORED_MAPS = TrialStatistic(
    "mirrored_maps", mirrored_maps, "its {block} looks elsewhere when the picture is mirrored"
)
