"""Promotion by loss and maps: who goes on, what is said of the others, and what no newcomer can undo."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.settings.parsing import parse
from search.study.maps_promotion import MapsPromotionRule
from search.study.promotion import PromotionRule, Standing
from search.study.pruning import build_promotion
from tests.search.study.scripted_study import Bench, ScriptedExecutor

NAMES = ("mirrored_maps", "mirrored_answers", "maps_against_top", "localised_answers")


def maps(mirrored: float, others: float = 0.5) -> dict[str, dict[str, float]]:
    return {
        "mirrored_maps": {"stage5": mirrored, "top": others},
        **{name: {"" if name == "mirrored_answers" else "top": others} for name in NAMES[1:]},
    }


def standing(
    slot: int, loss: float, mirrored: float, *, depth: int = 4, rung: int = 1, network: str | None = None
) -> Standing:
    return Standing(slot, depth, {rung: 0.9}, True, network, {rung: loss}, {rung: maps(mirrored)})


def test_of_equal_losses_the_maps_decide_and_without_statistics_the_loss() -> None:
    trials = [standing(0, 0.3, 0.2), standing(1, 0.3, 0.8), standing(2, 0.3, 0.4)]
    assert MapsPromotionRule((1, 2), 3).next(trials) == 1
    trials = [standing(0, 0.3, 0.2), standing(1, 0.4, 0.9), standing(2, 0.2, 0.1)]
    assert MapsPromotionRule((1, 2), 3, statistics=()).next(trials) == 2


def test_maps_of_another_network_do_not_compare() -> None:
    """The second network's maps are all stronger; the best of each is as good as the other's, and the loss decides."""
    first = [standing(slot, loss, value, network="a") for slot, (loss, value) in enumerate([(0.2, 0.3), (0.3, 0.2)])]
    second = [
        standing(slot, loss, value, network="b") for slot, (loss, value) in enumerate([(0.3, 0.9), (0.4, 0.8)], 2)
    ]
    late = [replace(t, scores={4: 0.9}, losses={4: t.losses[1]}, maps={4: t.maps[1]}) for t in first + second]
    assert MapsPromotionRule((1, 2, 4), 3).next(late) == 0


def test_trials_in_full_never_wait_and_like_is_compared_with_like_at_first() -> None:
    trials = [standing(0, 0.9, 0.1), standing(1, 0.2, 0.9), standing(2, 0.1, 0.9, depth=8)]
    rule = MapsPromotionRule((1, 2), 3, in_full=(0,))
    assert rule.passes(trials[0], trials)
    assert rule.ahead(trials[0], trials) == [trials[1]]


def test_what_is_said_of_a_trial_names_its_weakest_map_with_both_numbers() -> None:
    trials = [standing(0, 0.3, 0.31), standing(1, 0.3, 0.62), standing(2, 0.3, 0.62)]
    rule = MapsPromotionRule((1, 2), 3)
    assert rule.shown_by_maps(trials[0], trials) == (
        "its stage 5 looks elsewhere when the picture is mirrored: .31 against .62"
    )
    line = rule.reason(trials[0], trials)
    assert line.startswith(
        "maps rule at epoch 1: 2 of 2 other trials of similar freeze depth are ahead; its stage 5 looks"
    )
    assert rule.shown_by_maps(trials[1], trials) == ""  # nobody is ahead
    worse = [standing(0, 0.9, 0.62), *trials[1:]]
    assert rule.weakest(worse[0], worse) is None  # by its loss alone


def test_trials_without_maps_are_compared_by_their_loss() -> None:
    plain = [Standing(slot, 4, {1: 0.9}, True, losses={1: loss}) for slot, loss in enumerate((0.3, 0.1, 0.2))]
    rule = MapsPromotionRule((1, 2), 3)
    assert rule.next(plain) == 1 and rule.shown_by_maps(plain[0], plain) == ""


trials_of = st.lists(st.tuples(st.floats(0.05, 2), st.floats(-1, 1)), min_size=1, max_size=9)


@given(trials_of, st.integers(0, 6), st.integers(0, 2**16))
def test_none_is_given_up_that_newcomers_could_still_let_pass(
    values: list[tuple[float, float]], to_come: int, seed: int
) -> None:
    """Whoever is hopeless with trials to come is hopeless after any of them have come."""
    rule = MapsPromotionRule((1, 2), 3, early=0)
    trials = [standing(slot, loss, value) for slot, (loss, value) in enumerate(values)]
    most = len(trials) + to_come
    gone = {t.slot for t in rule.hopeless(trials, most)}
    rng = random.Random(seed)
    later = [standing(len(trials) + n, rng.uniform(0.05, 2), rng.uniform(-1, 1)) for n in range(to_come)]
    after = trials + later
    assert not {t.slot for t in trials if rule.passes(t, after)} & gone


@given(trials_of)
def test_promotion_by_loss_alone_is_that_of_the_judge_loss(values: list[tuple[float, float]]) -> None:
    trials = [standing(slot, loss, value) for slot, (loss, value) in enumerate(values)]
    alone = MapsPromotionRule((1, 2), 3, statistics=())
    assert alone.next(trials) == PromotionRule((1, 2), 3, judge="loss").next(trials)


def test_the_setting_makes_the_rule() -> None:
    settings = parse({"search": {"pruner": "maps"}}).search
    rule = build_promotion(settings, 10, in_full=3)
    assert isinstance(rule, MapsPromotionRule) and rule.at == (1, 2, 4, 8)


def test_a_driver_keeps_what_maps_say_stops_by_it_and_logs_it() -> None:
    """Equal scores and losses: the maps alone decide who goes on, and the reason names them."""
    executor = ScriptedExecutor(script=lambda n, job: [0.5] * 3, maps=lambda job, step: maps(0.9 - 0.1 * job.slot))
    bench = Bench(trials=6, pruner="maps", startup_trials=6)
    bench.run(executor)
    outcomes = {t.user_attrs["slot"]: t.user_attrs for t in bench.study.get_trials()}
    assert outcomes[0]["outcome"] == "complete"
    assert outcomes[0]["maps"][1] == maps(0.9)  # an in-memory study knows numbers as keys
    pruned = [a for a in outcomes.values() if a["outcome"] == "pruned"]
    assert len(pruned) >= 2
    assert any("looks elsewhere when the picture is mirrored" in a["reason"] for a in pruned)
    metrics = {k: v for _, found in bench.tracker.runs["run1"].metrics for k, v in found.items()}
    assert metrics["maps_mirrored_maps_stage5"] == pytest.approx(0.8)
    assert metrics["maps_mirrored_answers"] == 0.5 and metrics["map_seconds"] == pytest.approx(0.01)
