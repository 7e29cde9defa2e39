"""The network of a trial: found where the trial left it, and the same as one that is trained again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from search.errors import TrialCancelledError
from search.trial.files import network_file
from search.trial.result import TrialParams, TrialResult
from search.trial.task import Task
from search.trial.training import keep_network, run_trial, trial_network

PARAMS = TrialParams("momentum", 1.0, 5)


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


@pytest.mark.parametrize("run", [pytest.param(_in_one_go, marks=[pytest.mark.slow, pytest.mark.long]), _with_waits])
@pytest.mark.parametrize(
    "params",
    [
        pytest.param(
            replace(PARAMS, freeze_depth=0, lr_factor=0.1),
            id="everything thawed",
            marks=[pytest.mark.slow, pytest.mark.long],
        ),
        pytest.param(replace(PARAMS, optimizer="adam"), id="half of it"),
        pytest.param(replace(PARAMS, freeze_depth=8), id="the head alone"),
    ],
)
def test_the_kept_network_is_the_one_that_would_be_trained_again(
    make_task: Callable[..., Task],
    tmp_path: Path,
    run: Callable[[Task, TrialParams, Path], TrialResult],
    params: TrialParams,
) -> None:
    task, file = make_task(epochs=3), tmp_path / "slot-0.pt"
    run(task, params, file)
    kept = trial_network(task, params, 3, 3, checkpoint=file, cancelled=lambda: True)  # nobody can train it
    again = trial_network(task, params, 3, 3)
    assert not kept.training and kept.freeze_depth == again.freeze_depth == params.freeze_depth
    other = again.state_dict()
    assert all(torch.equal(part, other[name]) for name, part in kept.state_dict().items())


@pytest.mark.parametrize("fold", [None, 1])
def test_a_network_that_a_worker_leaves_is_the_one_that_would_be_trained(
    make_task: Callable[..., Task], tmp_path: Path, fold: int | None
) -> None:
    task, file = make_task(folds=2, epochs=1), tmp_path / "slot-0.pt"
    keep_network(task, PARAMS, 3, fold=fold, checkpoint=file)
    kept = trial_network(task, PARAMS, 3, 1, fold=fold, checkpoint=file, cancelled=lambda: True)
    other = trial_network(task, PARAMS, 3, 1, fold=fold).state_dict()
    assert all(torch.equal(part, other[name]) for name, part in kept.state_dict().items())
    with pytest.raises(TrialCancelledError):  # of other images
        trial_network(task, PARAMS, 3, 1, fold=0, checkpoint=file, cancelled=lambda: True)


def test_a_refit_goes_on_from_the_network_of_its_trial(make_task: Callable[..., Task], tmp_path: Path) -> None:
    task, file = make_task(epochs=2), tmp_path / "slot-0.pt"
    search = replace(task.settings.search, refit_epochs=1)
    short = replace(task, settings=replace(task.settings, search=search))
    run_trial(short, PARAMS, seed=3, checkpoint=file)
    keep_network(short, PARAMS, 3, fold=None, checkpoint=file)
    kept = trial_network(short, PARAMS, 3, 2, fold=None, checkpoint=file, cancelled=lambda: True).state_dict()
    network_file(file).unlink()
    other = trial_network(short, PARAMS, 3, 2, fold=None).state_dict()  # the trial and the epoch after it, once more
    assert all(torch.equal(part, other[name]) for name, part in kept.items())
    trial, anew = (trial_network(t, PARAMS, 3, 2, fold=f).state_dict() for t, f in ((short, 0), (task, None)))
    for one in (trial, anew):
        assert not all(torch.equal(part, one[name]) for name, part in kept.items())
    with pytest.raises(TrialCancelledError):  # another refit
        trial_network(task, PARAMS, 3, 2, fold=None, checkpoint=file, cancelled=lambda: True)


def test_a_refit_reads_what_its_trial_stored(
    make_task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, file = make_task(cache="refit", epochs=2, batch_norm_images=8), tmp_path / "slot-0.pt"
    search = replace(task.settings.search, refit_epochs=2)
    task = replace(task, settings=replace(task.settings, search=search))
    run_trial(task, PARAMS, seed=3, checkpoint=file)
    images: list[int] = []
    inputs = task.cache._inputs

    def noted(rows: NDArray[np.int64], views: NDArray[np.int64]) -> torch.Tensor:
        images.extend(rows.tolist() if len(rows) > 1 else [])  # one tells the shape
        return inputs(rows, views)

    monkeypatch.setattr(task.cache, "_inputs", noted)
    keep_network(task, PARAMS, 3, fold=None, checkpoint=file)
    fold = task.splits.folds[0]
    assert images and set(images) <= set(fold.val.tolist())
    drawn = task.statistics_rows(task.rows(None))
    assert len(drawn) == 8 and len(np.unique(drawn)) == 8
    assert set(drawn.tolist()) - set(fold.val.tolist()) <= set(task.statistics_rows(fold.train).tolist())
    share = np.isin(drawn, fold.val).mean()
    assert 0 < share < 0.5


@pytest.mark.parametrize("change", ["nothing there", "cut", "of another trial", "of another epoch"])
def test_what_is_not_the_network_is_trained_again(make_task: Callable[..., Task], tmp_path: Path, change: str) -> None:
    task, file = make_task(), tmp_path / "slot-0.pt"
    run_trial(task, PARAMS, seed=3, checkpoint=file)
    network, epochs = network_file(file), task.settings.trainer.epochs
    if change == "nothing there":
        network.unlink()
    elif change == "cut":
        network.write_bytes(network.read_bytes()[:2000])
    elif change == "of another trial":
        run_trial(task, PARAMS, seed=4, checkpoint=file)
    else:
        epochs -= 1
    with pytest.raises(TrialCancelledError):
        trial_network(task, PARAMS, 3, epochs, checkpoint=file, cancelled=lambda: True)


@pytest.mark.slow
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
