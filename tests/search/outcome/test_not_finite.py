"""A network that answers with numbers that are not finite never wins; what is said of a test that is read again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.networks.blocknet import BlockNet
from search import load_study
from search.__main__ import main
from search.outcome import winner
from search.trial import training
from search.trial.result import TrialParams
from search.trial.task import Task

# With SGD at 1000 times its rate the third step overflows: from random weights, whatever the images.
BLOWN_UP = (
    "model=lenet5", "model.name=lenet5_relu", "space.optimizers=[sgd]", "space.default_optimizer=sgd",
    "space.lr_factor=[1000,1000]", "space.default_lr_factor=1000", "trainer.epochs=1", "search.trials=1",
    "trainer.batch_size=8",  # three steps an epoch
)  # fmt: skip


def registered(root: Path, name: str) -> list[Any]:
    with closing(sqlite3.connect(root / "mlflow.db")) as store:
        return list(store.execute("SELECT version FROM model_versions WHERE name = ?", (name,)))


def test_a_trial_whose_outputs_overflow_has_diverged(
    tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Callable[..., Any]
) -> None:
    outcome = run_search_warm(*tiny, *BLOWN_UP, "search.study=blown-up", "tracking.model_name=blown-up")
    assert outcome.code == 2
    assert outcome.err.startswith("search: every trial that ran its full length diverged (a loss or an output was")
    assert len(outcome.err.splitlines()) == 1
    study = load_study("blown-up", tracking_root)
    assert [trial.outcome for trial in study.trials] == ["diverged"]
    assert study.winner is None and study.test_reads == 0
    assert not registered(tracking_root, "blown-up")


def test_a_refit_that_diverges_does_not_win(
    tiny: tuple[str, ...], tracking_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = training.train_final
    calls: list[TrialParams] = []

    def planted(task: Task, params: TrialParams, *others: Any, **more: Any) -> BlockNet:
        net = trained(task, params, *others, **more)
        calls.append(params)
        if len(calls) <= broken:
            next(net.head.parameters()).data[:] = float("inf")
        return net

    monkeypatch.setattr(training, "train_final", planted)
    words = (*tiny, "model=lenet5", "trainer.epochs=1", "search.trials=2", "search.study=refits",
             "tracking.model_name=refits")  # fmt: skip
    broken = 2
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("search: every trial that ran its full length diverged")
    assert said.out.count("cannot win: refitted, it answers with numbers that are not finite.") == 2
    study = load_study("refits", tracking_root)
    assert sorted(study.refits_diverged) == [0, 1]
    assert study.best is None and study.test_reads == 0
    assert not registered(tracking_root, "refits")

    calls.clear()
    broken = 1
    assert main([*words, "search.fresh=true"]) == 0
    said = capsys.readouterr()
    study = load_study("refits", tracking_root)
    assert study.winner is not None and study.best is not None
    (lost,) = study.refits_diverged
    assert study.winner.slot == study.best.slot == 1 - lost
    assert study.test_reads == 1
    assert len(registered(tracking_root, "refits")) == 1


def test_a_second_reading_of_the_test_images_is_told(
    tiny: tuple[str, ...], tracking_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*tiny, "model=lenet5", "trainer.epochs=1", "search.trials=1", "search.study=twice")

    def too_large(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(winner, "scores_with_intervals", too_large)
        with pytest.raises(MemoryError):
            main(words)
    assert load_study("twice", tracking_root).test_reads == 1
    assert "read again" not in capsys.readouterr().out
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "The test images are read again; until now they were read once." in said
    assert "read 2 times" in said
    assert load_study("twice", tracking_root).test_reads == 2
