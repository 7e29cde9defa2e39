"""What the terminal shows of a finished study."""

from __future__ import annotations

import io

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial
from rich.console import Console

from search.outcome.summary import print_networks, print_winner
from search.study.record import StudyRecord, Winner

SPACE = {
    "optimizer": CategoricalDistribution(["momentum"]),
    "lr_factor": FloatDistribution(0.1, 10.0, log=True),
    "freeze_depth": IntDistribution(0, 8),
}


def _study(trials: list[tuple[float, list[float]]]) -> optuna.Study:
    """One trial a slot: (best score, curve); those with three epochs are complete."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=InMemoryStorage(), direction="maximize")
    for slot, (best, curve) in enumerate(trials):
        complete = len(curve) == 3
        outcome = "complete" if complete else "pruned"
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=best if complete else curve[-1],  # Optuna keeps the last epoch of a pruned trial
                params={"optimizer": "momentum", "lr_factor": 1.0, "freeze_depth": 4},
                distributions=SPACE,
                intermediate_values=dict(enumerate(curve, start=1)),
                user_attrs={"slot": slot, "value": best, "epochs": len(curve), "seconds": 1.0, "outcome": outcome},
            )
        )
    return study


def test_networks_are_compared_where_there_are_several() -> None:
    stream = io.StringIO()
    study = _study([(0.5, [0.4, 0.5, 0.5]), (0.9, [0.9, 0.2])])
    print_networks(Console(file=stream, width=100), StudyRecord(study), "macro_f1")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("reads", "words"), [(1, "read once"), (2, "read 2 times")])
def test_how_often_the_test_images_were_read_is_said(reads: int, words: str) -> None:
    stream = io.StringIO()
    winner = Winner(
        slot=3, params={"optimizer": "momentum", "lr_factor": 1.0, "freeze_depth": 4}, value=0.9, epochs=1, refit=True,
        images=(30, 6), test={"accuracy": 1.0, "macro_f1": 1.0}, intervals={"accuracy": (0.54, 1), "macro_f1": (1, 1)},
        version="1", run_id="r", seconds=1.0,
    )  # fmt: skip
    print_winner(Console(file=stream, width=100), winner, reads)
    text = " ".join(stream.getvalue().split())
    assert (
        "Winner: trial 3, momentum, learning rate 0.01, freeze depth 4, trained for 1 epoch on 30 training and" in text
    )
    assert f"Test scores on 6 images, {words}: accuracy 1.0000, macro F1 1.0000." in text
