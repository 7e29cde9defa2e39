"""Which trial is best: one order for the winner, the lines of a running search, the tables and the pages."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from search.study.record import Trial, best_seen, best_trial, rank

_NONE = Trial(0, "sgd", 0.01, 1.0, 0, None, 0.5, 0, 1, "complete", "", 1.0, 1.0, (0.5,), "")


def _trial(slot: int, value: float, freeze_depth: int = 0, outcome: str = "complete") -> Trial:
    return dataclasses.replace(_NONE, slot=slot, value=value, freeze_depth=freeze_depth, outcome=outcome)


ORDERED = [
    _trial(5, 0.9, freeze_depth=4),
    _trial(2, 0.9, freeze_depth=1),
    _trial(3, 0.9, freeze_depth=1),
    _trial(1, 0.8, freeze_depth=8),
    _trial(0, 0.95, outcome="pruned"),
    _trial(4, 0.0, outcome="diverged"),
]


def test_the_order_is_the_same_whatever_the_trials_came_in() -> None:
    for shuffled in itertools.islice(itertools.permutations(ORDERED), 0, None, 37):
        assert sorted(shuffled, key=rank) == ORDERED
        assert best_trial(shuffled) == ORDERED[0]
        assert best_seen(shuffled) == ORDERED[4]


@pytest.mark.parametrize(
    ("trials", "best", "seen"),
    [
        ([], None, None),
        ([_trial(0, 0.7, outcome="pruned")], None, 0),
        ([_trial(0, 0.7, outcome="pruned"), _trial(1, 0.7)], 1, 1),
        ([_trial(0, 0.0, outcome="diverged")], None, None),
        ([_trial(0, float("nan"), outcome="pruned"), _trial(1, 0.2, outcome="pruned")], None, 1),
    ],
)
def test_only_a_complete_trial_can_win(trials: list[Trial], best: int | None, seen: int | None) -> None:
    found = best_trial(trials), best_seen(trials)
    assert tuple(trial and trial.slot for trial in found) == (best, seen)
