"""Which trial wins, and how often the test images are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from search.study.record import StudyRecord, Winner
from search.trial.result import TrialParams
from search.trial.space import Space

SPACE = Space(("adam",), (0.1, 10.0), (0, 8), TrialParams("adam", 1.0, 4))


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


def _study(trials: list[tuple[int, int, float | None]]) -> optuna.Study:
    """Trials (slot, freeze depth, value), in the order they were told; None is a pruned one."""
    study = optuna.create_study(storage=InMemoryStorage(), direction="maximize")
    for slot, depth, value in trials:
        study.enqueue_trial(asdict(TrialParams("adam", 1.0, depth)))
        trial = study.ask()
        SPACE.suggest(trial)
        trial.set_user_attr("slot", slot)
        if value is None:
            trial.report(0.99, 1)
            trial.set_user_attr("outcome", "pruned")
            study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("outcome", "complete")
            trial.set_user_attr("value", value)
            study.tell(trial, value)
    return study


def _slot(trials: list[tuple[int, int, float | None]]) -> int | None:
    winner = StudyRecord(_study(trials)).best()
    return None if winner is None else winner.slot


@pytest.mark.parametrize(
    ("trials", "slot"),
    [
        ([(0, 2, 0.8), (1, 5, 0.8), (2, 4, 0.7)], 1),  # of equals the deeper, cheaper freeze
        ([(0, 5, 0.8), (1, 5, 0.8)], 0),  # then the earlier
        ([(1, 5, 0.8), (0, 5, 0.8)], 0),  # by slot, not by when it was told
        ([(0, 8, 0.8), (1, 0, 0.81)], 1),  # better accuracy beats cheapness
        ([(0, 8, None), (1, 0, 0.1)], 1),  # a pruned trial never wins, whatever it reported
        ([(0, 3, 0.0)], 0),
        ([(0, 8, None)], None),
        ([], None),
    ],
)
def test_choice(trials: list[tuple[int, int, float | None]], slot: int | None) -> None:
    assert _slot(trials) == slot


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from([None, 0.1, 0.5, 0.9])), min_size=1, max_size=6), st.randoms()
)
def test_the_order_of_telling_does_not_matter(outcomes: list[tuple[int, float | None]], random: Any) -> None:
    trials = [(slot, depth, value) for slot, (depth, value) in enumerate(outcomes)]
    shuffled = list(trials)
    random.shuffle(shuffled)
    assert _slot(trials) == _slot(shuffled)


def test_a_trial_without_a_slot_is_not_of_this_driver() -> None:
    study = _study([(0, 2, 0.5)])
    study.add_trial(optuna.trial.create_trial(value=0.9))
    winner = StudyRecord(study).best()
    assert winner is not None and winner.slot == 0


@pytest.mark.parametrize("tested", [True, False])
def test_a_recorded_winner_comes_back_as_it_was(tested: bool) -> None:
    record = StudyRecord(_study([]))
    assert record.winner is None
    test, intervals = ({"accuracy": 0.5}, {"accuracy": (0.25, 0.75)}) if tested else (None, None)
    winner = Winner(3, {"optimizer": "adam"}, 0.5, 4, True, (30, 6), test, intervals, "1", "run", 2.5)
    record.winner = winner
    assert record.source.user_attrs["winner"] == asdict(winner)
    assert record.winner == winner
