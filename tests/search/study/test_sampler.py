"""The sampler that starts from a prior: range, floor, decay, seeds, and what it leaves to Optuna's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from explain.evidence import depth_prior
from search.settings.schema import SearchSettings
from search.study.sampler import PriorSampler, SamplerView, build_sampler, prior_weight
from search.trial.result import TrialParams
from search.trial.space import Space

SPACE = Space(("momentum", "adam"), (0.1, 10.0), (0, 4), TrialParams("momentum", 1.0, 2))
PEAKED = np.array([0.04, 0.04, 0.04, 0.04, 0.84])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def run(
    trials: int,
    prior: np.ndarray | None,
    *,
    space: Space = SPACE,
    seed: int = 0,
    options: SearchSettings | None = None,
    value: Callable[[TrialParams], float] = lambda params: -abs(params.freeze_depth - 1),
) -> list[TrialParams]:
    """A study whose sampler is made anew for every slot, as the driver does; every third trial is pruned."""
    study = optuna.create_study(direction="maximize")
    drawn = []
    for slot in range(trials):
        study.sampler = build_sampler(options or SearchSettings(startup_trials=4), seed, slot, prior)
        trial = study.ask()
        params = space.suggest(trial)
        drawn.append(params)
        if slot % 3 == 2:
            trial.report(value(params), 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value(params))
    return drawn


def test_a_slot_draws_the_same_again() -> None:
    assert run(12, PEAKED) == run(12, PEAKED)
    assert run(12, PEAKED) != run(12, PEAKED, seed=1)


def test_without_a_prior_it_is_the_sampler_itself() -> None:
    assert not isinstance(build_sampler(SearchSettings(), 0, 0), PriorSampler)
    assert not isinstance(build_sampler(SearchSettings(sampler="random"), 0, 0, None), PriorSampler)


def test_early_trials_follow_the_prior_and_late_ones_the_sampler() -> None:
    options = SearchSettings(startup_trials=4, prior_trials=10)
    early = [run(5, PEAKED, seed=seed, options=options) for seed in range(30)]
    share = np.mean([params.freeze_depth == 4 for study in early for params in study])
    assert 0.74 < share < 0.94  # 0.84 expected; 150 draws have a standard error of 0.03
    late = [run(24, PEAKED, seed=seed, options=options)[14:] for seed in range(6)]
    assert np.mean([params.freeze_depth == 1 for study in late for params in study]) > 0.4, "TPE finds the best depth"
    assert np.mean([params.freeze_depth == 4 for study in late for params in study]) < 0.3


def test_the_other_parameters_still_come_from_the_sampler() -> None:
    def best_with_adam(params: TrialParams) -> float:
        return (params.optimizer == "adam") - abs(np.log(params.lr_factor / 3))

    options = SearchSettings(startup_trials=4, prior_trials=200)
    drawn = [run(40, PEAKED, seed=seed, options=options, value=best_with_adam)[20:] for seed in range(3)]
    assert np.mean([params.optimizer == "adam" for study in drawn for params in study]) > 0.6
    assert np.mean([params.freeze_depth == 4 for study in drawn for params in study]) > 0.7


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.floats(-30, 30), min_size=2, max_size=9),
    eps=st.floats(0.2, 1.0),
    ends=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    seed=st.integers(0, 2**16),
)
def test_depths_stay_in_range_whatever_the_prior(
    scores: list[float], eps: float, ends: tuple[int, int], seed: int
) -> None:
    prior = depth_prior(scores, eps=eps).probabilities
    low, high = sorted(min(end, len(scores) - 1) for end in ends)
    assert prior.min() >= eps / len(scores) * (1 - 1e-9)
    space = Space(("momentum",), (0.1, 10.0), (low, high), TrialParams("momentum", 1.0, low))
    assert all(low <= params.freeze_depth <= high for params in run(3, prior, space=space, seed=seed))


def test_the_floor_keeps_every_depth_in_play() -> None:
    prior = depth_prior([0, 0, 0, 0, 1000], eps=0.2).probabilities
    options = SearchSettings(sampler="random", prior_trials=10_000)
    counts = np.bincount([p.freeze_depth for seed in range(10) for p in run(40, prior, seed=seed, options=options)])
    assert (counts[:4] > 4).all(), counts  # 16 expected of 400
    assert counts[4] > 300


def test_the_weight_is_full_for_the_first_half_and_falls_to_nothing() -> None:
    weights = [prior_weight(finished, 10) for finished in range(40)]
    assert weights[:6] == [1.0] * 6
    assert weights[10:] == [0.0] * 30
    assert weights == sorted(weights, reverse=True)
    assert prior_weight(0, 1) == 1.0 and prior_weight(1, 1) == 0.0


@pytest.mark.parametrize("prior", [[0.5, 0.5, 0.0], [0.5, np.nan], [[0.5, 0.5]], [-1.0, 2.0]])
def test_a_prior_that_rules_a_depth_out_is_refused(prior: list[float]) -> None:
    with pytest.raises(ValueError, match="prior must hold positive probabilities"):
        PriorSampler(RandomSampler(seed=0), np.array(prior), trials=10, seed=0)


def test_no_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="trials must be 1 or more, got 0"):
        PriorSampler(RandomSampler(seed=0), PEAKED, trials=0, seed=0)


def test_a_prior_for_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"freeze_depth must be an int in 0\.\.1"):
        run(1, np.array([0.5, 0.5]))


def test_reseeding_reaches_the_wrapped_sampler() -> None:
    sampler = build_sampler(SearchSettings(sampler="random"), 0, 0, PEAKED)
    sampler.reseed_rng()
    study = optuna.create_study(sampler=sampler)
    assert 0 <= SPACE.suggest(study.ask()).freeze_depth <= 4


def test_a_sampler_sees_the_newest_trials_and_the_best_of_the_others() -> None:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0))
    for number in range(340):
        trial = study.ask({"lr_factor": optuna.distributions.FloatDistribution(0.1, 10)})
        if number % 3:
            study.tell(trial, number / 340 if number < 50 else 0.05)
        else:
            study.tell(trial, state=TrialState.PRUNED)
    shown = SamplerView(study).study((), RandomSampler(0)).get_trials()
    assert len(shown) == 300 and [t.number for t in shown] == list(range(300))
    seen = {t.datetime_start for t in shown}
    kept = [t.number for t in study.get_trials() if t.datetime_start in seen]
    assert kept[-240:] == list(range(100, 340))
    finished = [n for n in range(100) if n % 3]
    best = sorted(finished, key=lambda n: (-(n / 340 if n < 50 else 0.05), n))[:60]
    assert kept[:60] == sorted(best)
