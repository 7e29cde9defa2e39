"""How each scorer of the evidence did, once the search knows which freeze depths scored well.

One row a scorer: the freeze depth it would have chosen, its order of the depths, how that order agrees with the best
validation score seen at each depth, and what its choice would have lost. Scores are of validation images, and depths
were tried more or less often: a look at one search, not a test. Nothing here loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from explain.evidence.scores import Numbers
from search.evidence.record import Evidence
from search.study.judge import best_seen
from search.study.record import Trial, TrialRecord

__all__ = ["ScorecardRow", "SeenDepth", "scorecard", "scorecard_table", "seen_depths"]


@dataclass(frozen=True)
class SeenDepth:
    """What the trials of one freeze depth reached.

    Attributes:
        best: best validation score of any of them, of a trial that was stopped early the best it had reached.
        stopped: whether the trial that reached it was stopped early, so that the depth may be better than this.
        trials: how many there were, those whose training diverged left out.
    """

    best: float
    stopped: bool
    trials: int


@dataclass(frozen=True)
class ScorecardRow:
    """How one scorer did.

    Attributes:
        used: whether `search.prior` chose it, so that it had a hand in which depths were tried.
        order: depths of the space by its s(k), the best first, the deeper one of equals; depths without s(k) left out.
        tau: Kendall's tau-b between s(k) and the best validation score, in [-1, 1]; NaN with fewer than two depths, or
            where all are equal in one of the two.
        p_value: of tau, two-sided, as if the scores of the depths were exchangeable; NaN as tau.
        depths: how many depths tau is over: those that were seen and have a score s(k).
        regret: best validation score seen minus the best seen at `chosen`, >= 0; None where `chosen` was not tried.
        seconds: what this scorer alone would have cost.
    """

    scorer: str
    used: bool
    order: tuple[int, ...]
    tau: float
    p_value: float
    depths: int
    regret: float | None
    seconds: float

    @property
    def chosen(self) -> int | None:
        """Freeze depth it would have chosen by itself: the first of `order`; None where it knows none."""
        return self.order[0] if self.order else None


def seen_depths(trials: Sequence[Trial] | Sequence[TrialRecord]) -> dict[int, SeenDepth]:
    """Freeze depth -> what was reached there, the shallowest first.

    Args:
        trials: finished trials (complete or pruned). Those that diverged are no word on their depth and are left out.
    """
    scored = [t for t in trials if t.outcome != "diverged" and math.isfinite(t.value)]
    found = {}
    for depth in sorted({t.freeze_depth for t in scored}):
        here = [t for t in scored if t.freeze_depth == depth]
        if best := best_seen(here):
            found[depth] = SeenDepth(best.value, best.outcome != "complete", len(here))
    return found


def scorecard(evidence: Evidence, seen: Mapping[int, SeenDepth]) -> tuple[ScorecardRow, ...]:
    """A row for each scorer, in the evidence's order; `seen`: what was reached at each freeze depth."""
    low, high = evidence.depths
    best = max((depth.best for depth in seen.values()), default=math.nan)
    rows = []
    for scorer in evidence.scorers.values():
        s = scorer.depth_scores
        tau, p_value, depths = _agreement(s, seen)
        order = tuple(sorted((k for k in range(low, high + 1) if np.isfinite(s[k])), key=lambda k: (-s[k], -k)))
        reached = seen.get(order[0]) if order else None
        rows.append(
            ScorecardRow(
                scorer=scorer.name,
                used=scorer.name == evidence.prior,
                order=order,
                tau=tau,
                p_value=p_value,
                depths=depths,
                regret=None if reached is None else best - reached.best,
                seconds=scorer.cost.seconds,
            )
        )
    return tuple(rows)


def _agreement(s: Numbers, seen: Mapping[int, SeenDepth]) -> tuple[float, float, int]:
    """Kendall's tau-b of s(k) and the best scores, its p-value, and over how many depths."""
    known = [k for k in seen if np.isfinite(s[k])]
    if len(known) < 2:
        return math.nan, math.nan, len(known)
    found = kendalltau(s[known], [seen[k].best for k in known])
    return float(found.statistic), float(found.pvalue), len(known)


def scorecard_table(rows: Sequence[ScorecardRow], trials: int) -> pd.DataFrame:
    """The scorecard of so many finished trials as it is logged, a line a scorer; what is not known is NaN."""
    return pd.DataFrame(
        [
            {
                "scorer": row.scorer,
                "used": row.used,
                "chosen_depth": math.nan if row.chosen is None else row.chosen,
                "order": " ".join(map(str, row.order)),
                "kendall_tau": round(row.tau, 4),
                "p_value": round(row.p_value, 4),
                "depths": row.depths,
                "chosen_was_tried": row.regret is not None,
                "regret": math.nan if row.regret is None else round(row.regret, 4),
                "seconds": round(row.seconds, 2),
                "trials": trials,
            }
            for row in rows
        ]
    )
