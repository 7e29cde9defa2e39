"""One trial is a function of task, parameters and seed, on a tiny task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_modules.image_store import load_images
from lightning_modules.splits import make_splits
from search.settings import DataSettings, ModelSettings, SearchSettings, Settings, TrainerSettings
from search.task import Task, build_task
from search.trial import EpochReport, TrialCancelledError, TrialParams, run_trial, train_final

PARAMS = TrialParams("momentum", 1.0, 5)


@pytest.fixture(scope="module")
def make_task(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> Callable[..., Task]:
    folder = tmp_path_factory.mktemp("trial")
    images = make_stripes(folder / "images", {"a": 8, "b": 8, "c": 8})

    def build(
        *, folds: int = 1, cache: str = "cache", epochs: int = 3, model: str = "efficientnet_lite0", **trainer: object
    ) -> Task:
        settings = Settings(
            data=DataSettings(source="folder", size=(32, 32), folds=folds, views=2),
            model=ModelSettings(model, "none" if model == "lenet5" else "imagenet"),
            search=SearchSettings(),
            trainer=TrainerSettings(epochs=epochs, batch_size=8, accelerator="cpu", **trainer),  # type: ignore[arg-type]
        )
        found = load_images("folder", images, size=(32, 32), cache=folder / "store")
        return build_task(settings, found, make_splits(found.index, folds=folds), cache=folder / cache)

    return build


def _curve(reports: tuple[EpochReport, ...]) -> list[tuple[float, ...]]:
    return [(r.fold, r.epoch, r.value, *r.metrics.values()) for r in reports]


@pytest.mark.parametrize("depth", [0, 5, 8])
def test_the_same_trial_gives_the_same_curve_with_and_without_cache(make_task: Callable[..., Task], depth: int) -> None:
    params = replace(PARAMS, freeze_depth=depth)
    first = run_trial(make_task(), params, seed=3)
    again = run_trial(make_task(), params, seed=3)
    without = run_trial(make_task(cache="none", cache_gigabytes=0.0), params, seed=3)
    assert _curve(first.curve) == _curve(again.curve) == _curve(without.curve)
    assert first.value == max(r.value for r in first.curve)
    assert first.curve[first.best_epoch].value == first.value
    assert first.metrics["val_macro_f1"] == first.value
    other = run_trial(make_task(), params, seed=4)
    assert _curve(other.curve) != _curve(first.curve)


def test_folds_are_averaged_epoch_by_epoch(make_task: Callable[..., Task]) -> None:
    result = run_trial(make_task(folds=3), PARAMS, seed=0)
    assert [(r.step, r.fold, r.epoch) for r in result.curve] == [(i, i // 3, i % 3) for i in range(9)]
    by_epoch = [[r.metrics["val_macro_f1"] for r in result.curve if r.epoch == e] for e in range(3)]
    means = [sum(values) / 3 for values in by_epoch]
    assert result.value == pytest.approx(max(means))
    assert [r.value for r in result.curve[-3:]] == pytest.approx(means)


def test_a_pruned_trial_stops_after_exactly_that_epoch(make_task: Callable[..., Task]) -> None:
    result = run_trial(make_task(), PARAMS, seed=0, report=lambda r: r.step < 1)
    assert len(result.curve) == 2
    assert result.stopped == "pruned"


def test_a_cancelled_trial_raises(make_task: Callable[..., Task]) -> None:
    with pytest.raises(TrialCancelledError):
        run_trial(make_task(), PARAMS, seed=0, cancelled=lambda: True)


def test_a_diverged_trial_has_the_worst_value(make_task: Callable[..., Task]) -> None:
    result = run_trial(make_task(), TrialParams("sgd", 1e18, 0), seed=0)
    assert result.stopped == "diverged"
    assert result.value == 0.0
    assert len(result.curve) < 3


def test_cost_is_counted_in_epochs_of_training_everything(make_task: Callable[..., Task]) -> None:
    task = make_task(epochs=2)
    full = run_trial(task, replace(PARAMS, freeze_depth=0), seed=0)
    head = run_trial(task, replace(PARAMS, freeze_depth=8), seed=0)
    assert full.epoch_equivalents == 2
    assert head.epoch_equivalents < 0.1


@pytest.mark.parametrize("trainer", [{"schedule": "cosine"}, {"class_weights": "balanced"}, {"warmup": False}])
def test_every_option_of_the_trainer_changes_the_curve(
    make_task: Callable[..., Task], trainer: dict[str, object]
) -> None:
    plain = run_trial(make_task(), PARAMS, seed=0)
    changed = run_trial(make_task(**trainer), PARAMS, seed=0)
    balanced = trainer == {"class_weights": "balanced"}  # the classes of this task are equally large
    assert (_curve(plain.curve) == _curve(changed.curve)) is balanced


def test_lenet5_trains_from_random_weights_and_the_final_fit_is_deterministic(make_task: Callable[..., Task]) -> None:
    import torch

    task = make_task(model="lenet5")
    params = TrialParams("adam", 1.0, 0)
    assert len(run_trial(task, params, seed=0).curve) == 3
    rows = task.splits.folds[0].train
    one, two = (train_final(task, params, 0, rows, 2) for _ in range(2))
    assert not one.training
    for left, right in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(left, right)
