"""Optuna's samplers and pruners, by name, with every argument that matters given.

The sampler is made anew for every slot of the study with a seed that belongs to the slot: a study that was
interrupted draws the same parameters as one that was not.
"""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from search.settings import SearchSettings

__all__ = ["build_pruner", "build_sampler", "slot_seed"]


def slot_seed(seed: int, slot: int) -> int:
    """Seed of a slot's parameters and training, in 0..2^31-1."""
    return int(np.random.SeedSequence([seed, slot]).generate_state(1)[0]) >> 1


def build_sampler(settings: SearchSettings, seed: int, slot: int) -> BaseSampler:
    """The sampler that draws the parameters of `slot`."""
    if settings.sampler == "random":
        return RandomSampler(seed=slot_seed(seed, slot))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # constant_liar and multivariate
        return TPESampler(
            n_startup_trials=settings.startup_trials,
            n_ei_candidates=24,
            multivariate=True,
            constant_liar=True,
            seed=slot_seed(seed, slot),
        )


def build_pruner(settings: SearchSettings) -> BasePruner:
    """The rule that stops a poor trial early; steps are epochs finished, from 1."""
    if settings.pruner == "none":
        return NopPruner()
    if settings.pruner == "halving":
        return SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=settings.halving_factor, min_early_stopping_rate=0
        )
    return MedianPruner(
        n_startup_trials=settings.pruner_startup_trials, n_warmup_steps=settings.pruner_warmup_epochs, interval_steps=1
    )
