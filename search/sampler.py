"""Optuna's samplers, by name, with every argument that matters given.

The sampler is made anew for every slot of the study with a seed that belongs to the slot: a study that was
interrupted draws the same parameters as one that was not.
"""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from search.settings import SearchSettings

__all__ = ["build_sampler", "slot_seed"]


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
