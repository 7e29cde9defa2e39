"""The network of a trial's best epoch: found where the trial left it, and the same as one that is trained again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.classifier import Classifier
from search.errors import TrialCancelledError
from search.trial.files import network_file
from search.trial.result import TrialParams, TrialResult
from search.trial.task import Task
from search.trial.training import run_trial, trial_network

PARAMS = TrialParams("momentum", 1.0, 5)


def _score_best_in(best_epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trial's validation score be best in this epoch: which it really is depends on the processor."""
    score = Classifier.on_validation_epoch_end

    def planted(self: Classifier) -> None:
        score(self)
        self.epoch_metrics[-1]["val_macro_f1"] = float(len(self.epoch_metrics) - 1 == best_epoch)

    monkeypatch.setattr(Classifier, "on_validation_epoch_end", planted)


def _in_one_go(task: Task, params: TrialParams, file: Path) -> TrialResult:
    return run_trial(task, params, seed=3, checkpoint=file)


def _with_waits(task: Task, params: TrialParams, file: Path) -> TrialResult:
    reported = [0]

    def report(_: object) -> str:
        reported[0] += 1
        return "wait" if reported[0] < task.settings.trainer.epochs else "train"

    while True:
        result = run_trial(task, params, seed=3, checkpoint=file, reported=reported[0], report=report)  # type: ignore[arg-type]
        if result.stopped is None:
            return result


def _kept(task: Task, params: TrialParams, file: Path, result: TrialResult) -> BlockNet:
    """The network of the file: whoever would train it is cancelled."""
    return trial_network(task, params, 3, result.best_epoch + 1, checkpoint=file, cancelled=lambda: True)


@pytest.mark.parametrize("run", [pytest.param(_in_one_go, marks=pytest.mark.slow), _with_waits])
@pytest.mark.parametrize(
    ("params", "best_epoch"),
    [
        pytest.param(replace(PARAMS, freeze_depth=0, lr_factor=0.1), 2, id="everything thawed, the last epoch"),
        pytest.param(replace(PARAMS, freeze_depth=0, lr_factor=100.0), 0, id="everything thawed, the first epoch"),
        pytest.param(replace(PARAMS, optimizer="adam"), 1, id="half of it, the epoch in between"),
        pytest.param(replace(PARAMS, freeze_depth=8), 0, id="the head alone"),
    ],
)
def test_the_kept_network_is_the_one_that_would_be_trained_again(
    make_task: Callable[..., Task],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Task, TrialParams, Path], TrialResult],
    params: TrialParams,
    best_epoch: int,
) -> None:
    _score_best_in(best_epoch, monkeypatch)
    task, file = make_task(epochs=3), tmp_path / "slot-0.pt"
    result = run(task, params, file)
    assert result.best_epoch == best_epoch
    kept = _kept(task, params, file, result)
    again = trial_network(task, params, 3, result.best_epoch + 1)
    assert not kept.training and kept.freeze_depth == again.freeze_depth == params.freeze_depth
    other = again.state_dict()
    assert all(torch.equal(part, other[name]) for name, part in kept.state_dict().items())


@pytest.mark.parametrize("change", ["nothing there", "cut", "of another trial", "of another epoch"])
def test_what_is_not_the_network_is_trained_again(make_task: Callable[..., Task], tmp_path: Path, change: str) -> None:
    task, file = make_task(), tmp_path / "slot-0.pt"
    result = run_trial(task, PARAMS, seed=3, checkpoint=file)
    network = network_file(file)
    epochs = result.best_epoch + 1
    if change == "nothing there":
        network.unlink()
    elif change == "cut":
        network.write_bytes(network.read_bytes()[:2000])
    elif change == "of another trial":
        run_trial(task, PARAMS, seed=4, checkpoint=file)
    else:
        epochs = result.best_epoch + 2
    with pytest.raises(TrialCancelledError):
        trial_network(task, PARAMS, 3, epochs, checkpoint=file, cancelled=lambda: True)


def test_with_folds_and_of_pruned_trials_no_network_is_kept(make_task: Callable[..., Task], tmp_path: Path) -> None:
    run_trial(make_task(folds=2), PARAMS, seed=3, checkpoint=tmp_path / "folds.pt")
    run_trial(make_task(), PARAMS, seed=3, checkpoint=tmp_path / "pruned.pt", report=lambda _: "stop")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_kept_costs_nothing_else(
    make_task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file\nframe 0")

    whole = run_trial(make_task(), PARAMS, seed=3)
    monkeypatch.setattr(torch, "save", full)
    result = run_trial(make_task(), PARAMS, seed=3, checkpoint=tmp_path / "slot-0.pt")
    assert result.value == whole.value and result.stopped is None and list(tmp_path.iterdir()) == []
