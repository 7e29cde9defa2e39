"""Which trial is best, in one order for winner, live line, tables and pages; and records that are damaged."""

from __future__ import annotations

import dataclasses
import itertools

import optuna
import pytest
from optuna.trial import create_trial

from search.errors import StoreError
from search.study.judge import best_seen, best_trial, rank
from search.study.record import StudyRecord, Trial, TrialRecord

_NONE = Trial(0, "sgd", 0.01, 1.0, 0, None, 0.5, 1.0, "score", 1, "complete", "", 1.0, 1.0, (0.5,), "")


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


@pytest.mark.parametrize(
    ("key", "value"),
    [("winner", {"slou": 1}), ("winner", "nothing"), ("test_reads", "x"), ("evidence", {"scorers": 3})],
)
def test_what_cannot_be_read_is_one_line(key: str, value: object) -> None:
    study = optuna.create_study()
    study.set_user_attr(key, value)
    with pytest.raises(StoreError, match=f"journal is damaged: {key} is not what was written"):
        getattr(StudyRecord(study), key)


def test_parameters_of_another_name_are_one_line() -> None:
    with pytest.raises(StoreError, match="journal is damaged: params is not what was written"):
        _ = TrialRecord(create_trial(value=0.5, params={}, distributions={})).params
