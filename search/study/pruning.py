"""Which rule ends or delays poor trials: what `search.pruner` names."""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner, NopPruner

from search.evidence.record import Evidence
from search.evidence.trust import trust_from_evidence
from search.settings.schema import SearchSettings
from search.study.maps_promotion import MapsPromotionRule
from search.study.promotion import PromotionRule
from search.trial.rungs import ENOUGH_STEPS, rungs

__all__ = ["build_promotion", "build_pruner", "expected_epochs"]


def build_pruner(settings: SearchSettings) -> BasePruner:
    """Optuna's rule that stops a trial for good; steps are epochs finished, from 1."""
    if settings.pruner != "median":
        return NopPruner()
    return MedianPruner(
        n_startup_trials=settings.pruner_startup_trials, n_warmup_steps=settings.pruner_warmup_epochs, interval_steps=1
    )


def build_promotion(
    settings: SearchSettings,
    steps: int,
    evidence: Evidence | None = None,
    *,
    batches: int = ENOUGH_STEPS,
    in_full: int = 1,
) -> PromotionRule | None:
    """The rule by which trials of so many steps wait for each other; None where they do not.

    Args:
        settings: which rule, its factor, and whether evidence decides how long a trial is trusted.
        steps: of a trial that runs its full length.
        evidence: of the study; None trusts all freeze depths alike.
        batches: training steps in an epoch (see `rungs`).
        in_full: how many of the first trials never wait.
    """
    if settings.pruner not in ("halving", "maps"):
        return None
    at = rungs(steps, batches)
    if settings.pruner == "maps":
        return MapsPromotionRule(at, settings.halving_factor, in_full=range(in_full))
    trust = trust_from_evidence(evidence) if evidence is not None and settings.trust == "evidence" else None
    return PromotionRule(at, settings.halving_factor, judge=settings.judge, trust=trust, in_full=range(in_full))


def expected_epochs(
    settings: SearchSettings, steps: int, trials: int, *, batches: int = ENOUGH_STEPS, in_full: int = 1
) -> float:
    """About how many epochs so many trials of so many steps will take, for telling the user when they end."""
    rule = build_promotion(settings, steps, batches=batches, in_full=in_full)
    return rule.expected_epochs(trials, steps) if rule and trials else float(trials * steps)
