"""Successive halving with promotion: who goes on from a rung, who waits, and who never will."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.study.promotion import PromotionRule, Standing
from search.trial.rungs import rungs


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, ()), (2, (1,)), (3, (1, 2)), (8, (1, 2, 4)), (9, (1, 2, 4, 8)), (10, (1, 2, 4, 8)), (30, (1, 2, 4, 8, 16))],
)
def test_rungs_double_and_never_name_the_last_epoch(epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs) == expected


@pytest.mark.parametrize(
    ("epochs", "batches", "expected"),
    [
        (10, 30, (1, 2, 4, 8)),
        (10, 8, (1, 2, 4, 8)),
        (10, 6, (2, 4, 8)),
        (10, 4, (2, 4, 8)),
        (10, 2, (2, 4, 8)),
        (10, 1, (4, 8)),
        (5, 6, (1, 2, 4)),
        (5, 3, (2, 4)),
        (40, 1, (8, 16, 32)),
        (3, 1, ()),
    ],
)
def test_trials_of_few_steps_are_first_compared_after_an_eighth_of_them_four_at_least_eight_at_most(
    epochs: int, batches: int, expected: tuple[int, ...]
) -> None:
    assert rungs(epochs, batches) == expected


def at_first_rung(*scores: float, depth: int = 4, waiting: bool = True) -> list[Standing]:
    return [Standing(slot, depth, {1: score}, waiting) for slot, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("trials", "closing", "expected"),
    [
        pytest.param([], False, None, id="nobody"),
        pytest.param(at_first_rung(0.5), False, None, id="nothing to compare with"),
        pytest.param(at_first_rung(0.5, 0.9), False, None, id="one in three of two is none"),
        pytest.param(at_first_rung(0.5, 0.9, 0.7), False, 1, id="one in three of three"),
        pytest.param(at_first_rung(0.5, 0.9, 0.7, 0.8, 0.6), False, 1, id="one in three of five"),
        pytest.param(at_first_rung(0.9, 0.9, 0.9), False, 0, id="of equals the earlier"),
        pytest.param(
            [Standing(0, 2, {1: 0.9}, True), Standing(1, 3, {1: 0.9}, True), Standing(2, 2, {1: 0.9}, True)],
            False, 1, id="of equals the deeper freeze",
        ),
        pytest.param(
            [Standing(0, 4, {1: 0.9, 2: 0.9}, True), *at_first_rung(0.5, 0.9, 0.7)[1:], Standing(3, 4, {1: 0.1}, True)],
            False, None, id="the best has passed already",
        ),
        pytest.param(at_first_rung(0.5, 0.9, 0.7, waiting=False), False, None, id="who runs needs no promotion"),
        pytest.param(at_first_rung(0.5), True, 0, id="closing: the only one"),
        pytest.param(at_first_rung(0.5, 0.9), True, 1, id="closing: the best of few"),
        pytest.param(
            [Standing(0, 4, {1: 0.9, 2: 0.8}, False), Standing(1, 4, {1: 0.7}, True)],
            True, None, id="closing: the best has passed already",
        ),
        pytest.param(
            [Standing(0, 4, {1: 0.5, 2: 0.6, 3: 0.6, 4: 0.7}, True), *at_first_rung(0.1, 0.9, 0.8, 0.7)[1:]],
            True, 0, id="those furthest ahead go first",
        ),
    ],
)  # fmt: skip
def test_who_goes_on(trials: list[Standing], closing: bool, expected: int | None) -> None:
    assert PromotionRule((1, 2, 4, 8), 3).next(trials, closing=closing) == expected


@pytest.mark.parametrize(
    ("judge", "scores", "losses", "expected"),
    [
        ("score", (0.9, 0.9, 0.9), (0.4, 0.3, 0.5), 1),
        ("score", (0.9, 0.8, 0.8), (0.4, 0.3, 0.5), 0),
        ("loss", (0.9, 0.8, 0.8), (0.4, 0.3, 0.5), 1),
        ("loss", (0.8, 0.8, 0.9), (0.3, 0.4, 0.3), 2),
    ],
)
def test_who_goes_on_by_which_judge(
    judge: str, scores: tuple[float, ...], losses: tuple[float, ...], expected: int
) -> None:
    trials = [Standing(n, 4, {1: scores[n]}, True, losses={1: losses[n]}) for n in range(3)]
    assert PromotionRule((1, 2, 4, 8), 3, judge=judge).next(trials) == expected


def test_early_rungs_compare_like_with_like() -> None:
    """A shallow freeze begins below the deep ones; it is judged by its neighbours until it has had time to climb."""
    deep = [Standing(slot, 8, {1: 0.9}, True) for slot in range(3)]
    shallow = [Standing(3 + i, i % 2, {1: 0.3 + 0.1 * i}, True) for i in range(3)]
    rule = PromotionRule((1, 2, 4), 3)
    assert rule.passes(deep[0], deep + shallow) and rule.passes(shallow[2], deep + shallow)
    assert not rule.passes(shallow[1], deep + shallow)
    assert not PromotionRule((1, 2, 4), 3, early=0).passes(shallow[2], deep + shallow)
    late = [Standing(t.slot, t.freeze_depth, {4: t.scores[1]}, True) for t in deep + shallow]
    assert not rule.passes(late[5], late)


def play(scores: list[float], factor: float, epochs: int = 10) -> dict[int, int]:
    """Epochs that each of these trials gets, one worker, each with the same score in every epoch."""
    rule = PromotionRule(rungs(epochs), factor)
    reached: dict[int, int] = {}

    def all_() -> list[Standing]:
        return [
            Standing(slot, 4, dict.fromkeys(range(1, epoch + 1), scores[slot]), epoch < epochs)
            for slot, epoch in reached.items()
        ]

    while True:
        slot = rule.next(all_(), closing=len(reached) == len(scores))
        if slot is None:
            if len(reached) == len(scores):
                return reached
            slot = len(reached)
        ends = [e for e in (*rule.at, epochs) if e > reached.get(slot, 0)]
        reached[slot] = ends[0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=25), st.sampled_from([2, 3, 4]))
def test_the_best_runs_its_full_length_and_few_others_do(scores: list[float], factor: int) -> None:
    scores = sorted(scores, reverse=True)  # when each is better than all before, each is among the best and goes on
    reached = play(scores, factor)
    assert reached[max(range(len(scores)), key=lambda i: (scores[i], -i))] == 10
    for rung, below in ((2, 1), (4, 2), (8, 4)):
        passed, there = (sum(epoch >= e for epoch in reached.values()) for e in (rung, below))
        assert passed <= max(1, there // factor) + 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 10), st.sampled_from([2, 3]))
def test_who_may_not_pass_never_does(scores: list[float], more: int, factor: int) -> None:
    """Whatever comes after: the poorest possible scores, or any of those seen."""
    rule = PromotionRule((1,), factor)
    now = at_first_rung(*scores)
    for trial in now:
        if rule.may_pass(trial, now, len(scores) + more):
            continue
        for later in (0.0, max(scores)):
            then = at_first_rung(*scores, *[later] * more)
            assert not rule.passes(trial, then, closing=True)


def test_the_reason_names_numbers() -> None:
    trials = at_first_rung(0.5, 0.9, 0.7)
    assert PromotionRule((1,), 3).reason(trials[0], trials) == (
        "halving rule at epoch 1: 2 of 2 other trials of similar freeze depth are ahead"
    )
    assert PromotionRule((1,), 3, early=0).reason(trials[1], trials) == (
        "halving rule at epoch 1: 0 of 2 other trials are ahead"
    )


def test_the_field_shrinks_as_fast_as_expected() -> None:
    reached = play([math.sin(7 * i) for i in range(27)], 3)
    expected = PromotionRule(rungs(10), 3).expected_epochs(27, 10)
    assert 0.8 * expected < sum(reached.values()) < 1.2 * expected < 0.25 * 27 * 10


def test_a_trial_in_full_passes_where_it_is_last_and_is_one_of_those_that_others_are_compared_with() -> None:
    trials = at_first_rung(0.1, 0.5, 0.6, 0.7)
    rule, plain = (PromotionRule((1, 2), 3, in_full=slots) for slots in ((0,), ()))
    assert [rule.passes(t, trials) for t in trials] == [True, False, False, True]
    assert [plain.passes(t, trials) for t in trials] == [False, False, False, True]
    assert rule.may_pass(trials[0], trials, most=4) and trials[0] not in rule.hopeless(trials, most=4)
    assert not rule.owes_to_trust(trials[0], trials)
    # Two of three rungs let a third on; one trial runs on in any case.
    assert PromotionRule((1, 2), 3, in_full=(0, 1)).expected_epochs(3, 4) == 3 + 2 + 2 * 2


@pytest.mark.parametrize("factor", [1, 0.5, -2])
def test_a_factor_that_lets_everybody_on_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=f"factor must be greater than 1, got {factor}"):
        PromotionRule((1,), factor)


@pytest.mark.parametrize("seed", range(5))
def test_a_rule_that_has_been_asked_before_answers_as_a_new_one(seed: int) -> None:
    """It sorts what is new among what it knows; trials come, go on, are lost and come again with another score."""
    rng = np.random.default_rng(seed)
    asked, at = PromotionRule((1, 2, 4), 3, in_full=[0]), (1, 2, 4)
    trials: dict[int, Standing] = {}
    for step in range(120):
        slot = int(rng.integers(0, 40))
        if slot not in trials or rng.random() < 0.05:
            trials[slot] = Standing(slot, slot % 6, {1: rng.choice([0.1, 0.5, rng.random()])}, True)
        elif rng.random() < 0.1:
            del trials[slot]  # diverged, or lost
        else:
            before = trials[slot]
            scores = {**before.scores, before.epoch + 1: rng.random()}
            trials[slot] = replace(before, scores=scores, waiting=before.epoch + 1 in at and bool(rng.random() < 0.8))
        all_, new = list(trials.values()), PromotionRule(at, 3, in_full=[0])
        closing = bool(step % 7 == 0)
        assert asked.next(all_, closing=closing) == new.next(all_, closing=closing)
        waiting = [t for t in all_ if t.waiting and t.epoch in at]
        expected = [t for t in waiting if not new.may_pass(t, all_, 60)]
        assert asked.hopeless(all_, 60) == expected
        passing = [
            t
            for rung in reversed(at)
            for t in sorted((t for t in waiting if t.epoch == rung), key=lambda t: asked._order(t, rung, all_))
            if new.passes(t, all_, closing=closing)
        ]
        assert asked.next(all_, closing=closing) == (passing[0].slot if passing else None)
