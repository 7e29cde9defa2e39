"""Optuna's samplers, by name, with every argument that matters given; and the one that starts from a prior.

The sampler is made anew for every slot of the study with a seed that belongs to the slot: a study that was
interrupted draws the same parameters as one that was not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from explain.evidence.scores import Numbers
from search.settings.schema import SearchSettings
from search.study.record import FINISHED, TrialRecord

__all__ = ["PriorSampler", "SamplerView", "build_sampler", "network_seed", "prior_weight", "slot_seed"]

_DEPTH, _NETWORK = "freeze_depth", "network"
_MOST_SHOWN, _BEST_SHOWN = 300, 60  # trials that a sampler sees, and how many of them for their score


def slot_seed(seed: int, slot: int) -> int:
    """Seed of a slot's parameters and training, in 0..2^31-1."""
    return int(np.random.SeedSequence([seed, slot]).generate_state(1)[0]) >> 1


def network_seed(seed: int) -> int:
    """Seed of a study's draws of networks, other than that of what is drawn for a network."""
    return int(np.random.SeedSequence([seed, 1, 1]).generate_state(1)[0]) >> 1


def build_sampler(settings: SearchSettings, seed: int, slot: int, prior: Numbers | None = None) -> BaseSampler:
    """The sampler that draws the parameters of `slot`.

    Args:
        prior: probabilities of freeze depths 0..L, (L+1,), that early trials draw from; None leaves the depth to the
            sampler.
    """
    sampler = _named_sampler(settings, slot_seed(seed, slot))
    if prior is None:
        return sampler
    return PriorSampler(sampler, prior, trials=settings.prior_trials, seed=slot_seed(seed, slot))


def _named_sampler(settings: SearchSettings, seed: int) -> BaseSampler:
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # constant_liar and multivariate
        return _SpaceOfLastTrial(
            n_startup_trials=settings.startup_trials,
            n_ei_candidates=24,
            multivariate=True,
            constant_liar=True,
            seed=seed,
        )


class _SpaceOfLastTrial(TPESampler):
    """TPE that takes the space from the last finished trial: all trials of a study have the same parameters.

    Optuna's own looks through every trial for those that all have, for every trial that is asked.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Name -> distribution, by name; empty before the first finished trial."""
        finished = (t for t in reversed(study.get_trials(deepcopy=False)) if t.state in FINISHED)
        last = next(finished, None)
        return {} if last is None else {n: d for n, d in sorted(last.distributions.items()) if not d.single()}


def prior_weight(finished: int, trials: int) -> float:
    """Probability that a trial's freeze depth is drawn from the prior: 1 for the first half of `trials`, then falling.

    Args:
        finished: finished trials, >= 0.
        trials: from so many on the weight is 0, >= 1.

    Example:
        >>> [round(prior_weight(finished, 10), 1) for finished in (0, 5, 6, 9, 10, 29)]
        [1.0, 1.0, 0.8, 0.2, 0.0, 0.0]
    """
    return float(np.clip(2 * (1 - finished / trials), 0, 1))


class PriorSampler(BaseSampler):
    """Draws `freeze_depth` from a prior in early trials and leaves everything else to another sampler.

    Whether a trial draws from the prior is decided once, by `prior_weight`. If so, the depth is taken out of what the
    wrapped sampler models, so that it chooses the other parameters for whatever depth comes.

    Args:
        wrapped: chooses the other parameters, and the depth when the prior's weight does not.
        prior: probabilities of freeze depths 0..L, (L+1,), all > 0; restricted to the space's range when drawn.
        trials: finished trials from which on the prior has no weight.

    Raises:
        ValueError: a prior that is not a list of positive probabilities, or a number of trials below 1.
    """

    def __init__(self, wrapped: BaseSampler, prior: Numbers, *, trials: int, seed: int) -> None:
        if prior.ndim != 1 or not (np.isfinite(prior) & (prior > 0)).all():
            raise ValueError(f"prior must hold positive probabilities, got {prior.tolist()}")
        if trials < 1:
            raise ValueError(f"trials must be 1 or more, got {trials}")
        self._wrapped, self._prior, self._trials = wrapped, prior, trials
        self._rng = np.random.default_rng([seed, 1])
        self._decided: tuple[int, bool] = (-1, False)  # trial number, whether it draws from the prior

    def reseed_rng(self) -> None:
        """Give both generators fresh entropy, as Optuna asks before it runs threads."""
        self._rng = np.random.default_rng()
        self._wrapped.reseed_rng()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the wrapped sampler models together, without the depth when that comes from the prior."""
        space = self._wrapped.infer_relative_search_space(study, trial)
        if self._from_prior(study, trial):
            space.pop(_DEPTH, None)
        return space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The wrapped sampler's choice for that space."""
        return self._wrapped.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The depth from the prior, or what the wrapped sampler says.

        Raises:
            ValueError: the study's range of depths is beyond the prior's.
        """
        if param_name != _DEPTH or not self._from_prior(study, trial):
            return self._wrapped.sample_independent(study, trial, param_name, param_distribution)
        if not isinstance(param_distribution, IntDistribution) or param_distribution.high >= len(self._prior):
            raise ValueError(f"{_DEPTH} must be an int in 0..{len(self._prior) - 1}, got {param_distribution}")
        low = param_distribution.low
        inside = self._prior[low : param_distribution.high + 1]
        return low + int(self._rng.choice(len(inside), p=inside / inside.sum()))

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Tell the wrapped sampler."""
        self._wrapped.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the wrapped sampler."""
        self._wrapped.after_trial(study, trial, state, values)

    def _from_prior(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if self._decided[0] != trial.number:
            finished = sum(t.state in FINISHED for t in study.get_trials(deepcopy=False))
            self._decided = (trial.number, bool(self._rng.random() < prior_weight(finished, self._trials)))
        return self._decided[1]


class SamplerView:
    """Copies of a study for one sampler after another.

    To Optuna, a trial that waits is running. A sampler would take it for as bad as the worst ("constant liar"),
    although its score is known: in a study where trials wait for each other, most of what there is to learn from.

    Args:
        both: whether the sampler sees a second objective, `map_spread` of the trials' attributes, to be minimised.
            Diverged trials are then complete ones with the worst of both: no trial of such a study was pruned.
    """

    def __init__(self, study: optuna.Study, *, both: bool = False) -> None:
        self._study, self._both = study, both
        self._shown: dict[tuple[str | None, int], _Shown] = {}

    def study(self, waiting: Collection[int], sampler: BaseSampler, *, network: str | None = None) -> optuna.Study:
        """The study as `sampler` may see it now; what it asks there stays there.

        Args:
            waiting: numbers of the trials that wait.
            sampler: of the copy.
            network: shows the trials of this network alone, as those of a study that has no other.
        """
        trials = self._study.get_trials(deepcopy=False)
        shown = _some([t for t in trials if network in (None, t.params.get(_NETWORK))])
        return self._copy(shown, waiting, sampler, network or "", lambda name: name != _NETWORK)

    def networks(self, waiting: Collection[int], sampler: BaseSampler) -> optuna.Study:
        """The same of all trials, with their network as the only parameter."""
        shown = _some(self._study.get_trials(deepcopy=False))
        return self._copy(shown, waiting, sampler, None, lambda name: name == _NETWORK)

    def _copy(
        self,
        trials: Sequence[FrozenTrial],
        waiting: Collection[int],
        sampler: BaseSampler,
        kind: str | None,
        has: Callable[[str], bool],
    ) -> optuna.Study:
        """A study of these trials with the parameters that `has` is true of, which `kind` stands for."""
        storage = InMemoryStorage()
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        number = storage.create_new_study([up, down] if self._both else [up], self._study.study_name)
        for trial in trials:
            shown = self._what_counts(trial, trial.number in waiting, kind, has)
            storage.create_new_trial(number, template_trial=shown)
        return optuna.load_study(study_name=self._study.study_name, storage=storage, sampler=sampler)

    def _what_counts(self, trial: FrozenTrial, waits: bool, kind: str | None, has: Callable[[str], bool]) -> _Shown:
        """What a sampler reads of a trial, made once for those that cannot change any more."""
        if (kind, trial.number) in self._shown:
            return self._shown[kind, trial.number]
        state, values = TrialState.PRUNED if waits else trial.state, trial.values
        if self._both and state is TrialState.COMPLETE and values:
            spread = TrialRecord(trial).map_spread
            values = [values[0], 1.0 if spread is None else spread]
        elif self._both and state is TrialState.PRUNED:
            state, values = TrialState.COMPLETE, [0.0, 1.0]
        shown = _Shown(
            number=trial.number,
            state=state,
            value=None,
            values=values,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_start if waits else trial.datetime_complete,
            params={name: value for name, value in trial.params.items() if has(name)},
            distributions={name: value for name, value in trial.distributions.items() if has(name)},
            user_attrs={},
            system_attrs={},
            intermediate_values=trial.intermediate_values,
            trial_id=trial.number,
        )
        if trial.state.is_finished():
            self._shown[kind, trial.number] = shown
        return shown


def _some(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The newest and, of the others, the best: a sampler learns no more of a thousand than of three hundred.

    Its time, and that of copying them, would grow with the study.
    """
    if len(trials) <= _MOST_SHOWN:
        return trials
    older, newest = trials[: -_MOST_SHOWN + _BEST_SHOWN], trials[-_MOST_SHOWN + _BEST_SHOWN :]
    done = [t for t in older if t.state is TrialState.COMPLETE and t.value is not None]
    best = sorted(done, key=lambda t: (-(t.value or 0.0), t.number))[:_BEST_SHOWN]
    return [*sorted(best, key=lambda t: t.number), *newest]


class _Shown(FrozenTrial):
    """A trial that no storage copies: copying a thousand of them for each one asked took most of the driver's time."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shown:
        return self
