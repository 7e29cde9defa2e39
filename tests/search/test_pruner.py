"""Successive halving: who goes on at a rung, and who never."""

from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pruner import HalvingRule, build_pruner, rungs
from search.settings import SearchSettings

PRUNED = optuna.trial.TrialState.PRUNED


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, ()), (2, (1,)), (3, (1, 2)), (8, (1, 2, 4)), (9, (1, 2, 4, 8)), (10, (1, 2, 4, 8)), (30, (1, 2, 4, 8, 16))],
)
def test_rungs_double_and_never_name_the_last_epoch(epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs) == expected


def _stopped(rule: HalvingRule, curves: list[list[float]]) -> list[int | None]:
    """Epoch after which each trial is stopped, in order; None for those that ran their full length."""
    study = optuna.create_study(direction="maximize", pruner=rule)
    ends: list[int | None] = []
    for curve in curves:
        trial = study.ask()
        end = None
        for step, value in enumerate(curve, 1):
            trial.report(value, step)
            if step < len(curve) and trial.should_prune():
                end = step
                break
        study.tell(trial, state=optuna.trial.TrialState.PRUNED if end else None, values=None if end else curve[-1])
        ends.append(end)
    return ends


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        pytest.param([[0.5] * 4, [0.4] * 4, [0.6] * 4], [None, 1, None], id="only a new best goes on among few"),
        pytest.param([[0.1 * i] * 4 for i in range(1, 7)], [None] * 6, id="each better than all before"),
        pytest.param([[0.9] * 4, *[[0.1 * i] * 4 for i in range(1, 6)]], [None, 1, 1, 1, 1, 2], id="one in three"),
        pytest.param([[0.9, 0.1, 0.1, 0.1], [0.9, 0.2, 0.9, 0.9]], [None, None], id="a tie goes on"),
        pytest.param([[0.5, 0.6, 0.7, 0.8], [0.6, 0.5, 0.9, 0.9]], [None, 2], id="the second rung"),
        pytest.param([[0.5, 0.6, 0.7, 0.8], [0.6, 0.7, 0.1, 0.9]], [None, None], id="between rungs nobody is stopped"),
    ],
)
def test_who_goes_on(curves: list[list[float]], expected: list[int | None]) -> None:
    assert _stopped(HalvingRule((1, 2), 3), curves) == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=25), st.sampled_from([2, 3, 4]))
def test_the_best_trial_is_never_stopped_and_few_run_on(values: list[float], factor: int) -> None:
    ends = _stopped(HalvingRule((1,), factor), [[v, v] for v in values])
    best = max(range(len(values)), key=lambda i: (values[i], -i))
    assert ends[best] is None
    for i, value in enumerate(values):
        better = sum(v > value for v in values[:i])
        assert (ends[i] is None) == (better < max(1, int((i + 1) / factor)))


def test_a_lost_attempt_does_not_count() -> None:
    study = optuna.create_study(direction="maximize", pruner=HalvingRule((1,), 3))
    lost = study.ask()
    lost.report(0.9, 1)
    study.tell(lost, state=optuna.trial.TrialState.FAIL)
    trial = study.ask()
    trial.report(0.1, 1)
    assert not trial.should_prune()


def test_a_diverged_trial_is_stopped_by_nan_free_zero() -> None:
    assert _stopped(HalvingRule((1,), 3), [[0.5, 0.5], [0.0, 0.0]]) == [None, 1]


@pytest.mark.parametrize("factor", [1, 0.5, -2])
def test_a_factor_that_lets_everybody_on_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=f"factor must be greater than 1, got {factor}"):
        HalvingRule((1,), factor)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("halving", HalvingRule), ("median", optuna.pruners.MedianPruner), ("none", optuna.pruners.NopPruner)],
)
def test_each_name_builds_its_rule(name: str, kind: type) -> None:
    assert isinstance(build_pruner(SearchSettings(pruner=name), 10), kind)


def test_the_field_shrinks_faster_than_the_cost_grows() -> None:
    """With one score a trial, a bracket over 27 trials costs a small multiple of one full trial each rung."""
    values = [math.sin(7 * i) for i in range(27)]
    ends = _stopped(HalvingRule(rungs(10), 3), [[v] * 10 for v in values])
    assert sum(end or 10 for end in ends) < 0.5 * 27 * 10


def test_early_rungs_compare_like_with_like() -> None:
    """A shallow freeze begins below the deep ones; it is judged by its neighbours until it has had time to climb."""
    rule = HalvingRule((1, 2, 4), 3, early=2)
    study = optuna.create_study(direction="maximize", pruner=rule)
    curves = {8: [0.6] * 5, 7: [0.59] * 5, 0: [0.3, 0.5, 0.7, 0.8, 0.9], 1: [0.2, 0.3, 0.4, 0.5, 0.6]}
    ends: dict[int, int | None] = {}
    for depth, curve in curves.items():
        study.enqueue_trial({"freeze_depth": depth})
        trial = study.ask({"freeze_depth": optuna.distributions.IntDistribution(0, 8)})
        ends[depth] = None
        for step, value in enumerate(curve, 1):
            trial.report(value, step)
            if trial.should_prune():
                ends[depth] = step
                break
        study.tell(trial, curve[-1] if ends[depth] is None else None, None if ends[depth] is None else PRUNED)
    assert ends == {8: None, 7: 1, 0: None, 1: 1}
    assert _stopped(HalvingRule((1, 2, 4), 3), list(curves.values())) == [None, 1, 1, 1]
