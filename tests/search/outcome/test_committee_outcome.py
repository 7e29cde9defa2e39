"""The best trials answer together: what is delivered, how it is told, and what it bought over the default trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from lightning_modules.networks.committee import alone
from search.notebook import load_study
from search.study.bought import bought
from search.study.judge import rank
from search.tracking.models import resolve_model
from search.tracking.tracker import tracking_uri


@pytest.fixture(scope="module")
def together(
    tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Callable[..., SimpleNamespace]
) -> SimpleNamespace:
    """Three trials in full, of which the best two answer together."""
    words = (*tiny, "search.trials=3", "search.pruner=none", "search.evidence=false", "search.members=2",
             "search.study=together", "tracking.model_name=together")  # fmt: skip
    outcome = run_search_warm(*words)
    assert outcome.code == 0, outcome.err
    return SimpleNamespace(words=words, out=outcome.out, root=tracking_root)


def test_the_best_trials_answer_together(together: SimpleNamespace) -> None:
    study = load_study("together", together.root)
    assert study.winner is not None
    ranked = sorted(study.trials, key=rank)
    assert study.winner.members == tuple(trial.slot for trial in ranked[:2])
    assert f"; it answers together with trial {ranked[1].slot}, trained alike." in together.out
    model = resolve_model(f"models:/together/{study.winner.version}", together.root)
    assert model.card.freeze_depth == ranked[0].freeze_depth and model.card.others == (ranked[1].freeze_depth,)
    assert model.card.shared == min(ranked[0].freeze_depth, ranked[1].freeze_depth)
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        (other,) = model.net.others
        first, second = model.card.weights
        mean = first * alone(model.net)(images) + second * other(images)
    assert not torch.equal(*(net(images) for net in (alone(model.net), other)))
    torch.testing.assert_close(model.probabilities(images), mean.softmax(1))


def test_what_the_search_bought_is_told(together: SimpleNamespace) -> None:
    study = load_study("together", together.root)
    assert study.winner is not None and study.test_reads == 1
    found = study.winner.bought
    assert found is not None and found.describe() in together.out
    run = MlflowClient(tracking_uri(together.root)).get_run(str(study.run_id))
    assert run.data.metrics["bought_accuracy"] == pytest.approx(found.accuracy_gain)
    assert run.data.metrics["test_accuracy"] - run.data.metrics["default_test_accuracy"] == pytest.approx(
        found.accuracy_gain
    )


@pytest.mark.slow
def test_other_members_are_another_delivery_of_the_same_trials(
    together: SimpleNamespace, run_search_warm: Callable[..., SimpleNamespace]
) -> None:
    outcome = run_search_warm(*together.words, "search.members=1")
    assert outcome.code == 0, outcome.err
    study = load_study("together", together.root)
    assert study.winner is not None and len(study.trials) == 3 and study.test_reads == 2
    assert study.winner.members == (study.winner.slot,)
    assert "together with" not in outcome.out


def test_a_difference_is_counted_in_pairs() -> None:
    truth = torch.tensor([0, 0, 1, 1, 2, 2])
    default, winner = (torch.nn.functional.one_hot(torch.tensor(answers), 3) for answers in
                       ([0, 1, 1, 0, 2, 0], [0, 0, 1, 1, 0, 2]))  # fmt: skip
    found = bought(truth, default, winner, 3, seed=0)
    assert (found.images, found.gained, found.lost) == (6, 3, 1)
    assert found.accuracy == pytest.approx(3 / 6) and found.accuracy_gain == pytest.approx(2 / 6)
    assert found.accuracy_interval[0] < 2 / 6 < found.accuracy_interval[1]
    assert found.macro_f1_interval[0] <= found.macro_f1_gain <= found.macro_f1_interval[1]
    assert np.isfinite(list(found.metrics().values())).all()
    same = bought(truth, winner, winner, 3, seed=0)
    assert (same.gained, same.lost, same.accuracy_gain, same.macro_f1_gain) == (0, 0, 0.0, 0.0)
