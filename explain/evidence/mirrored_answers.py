"""S2, the rival of all maps: does a trial answer alike when the picture is mirrored?"""

from __future__ import annotations

from explain.evidence.trial_maps import TrialMaps
from explain.evidence.trial_statistic import TrialStatistic

__all__ = ["MIRRORED_ANSWERS", "mirrored_answers"]


def mirrored_answers(maps: TrialMaps) -> dict[str, float]:
    """f = mean over images of sum_c min(p_c(x), p_c(mirror(x))) = 1 - total variation distance of the two answers.

    It needs no map and no gradient, so maps are worth something only where they say more than it does.

    Source: agreement of predictions under a transform, Deng et al. 2022, arXiv 2207.07065; of probabilities instead of
    classes, since of few images classes agree in few steps (own choice).
    Range: [0, 1]. Sign: +; more speaks for the trial.
    Null: the statistics of the trials at a rung, permuted among them.
    Cost: the forward half of `gather_trial_maps`.

    Returns:
        One value, of no block.
    """
    one, other = maps.probabilities
    return {"": float(one.minimum(other).sum(1).mean())}


MIRRORED_ANSWERS = TrialStatistic(
    "mirrored_answers", mirrored_answers, "it answers otherwise when the picture is mirrored"
)
