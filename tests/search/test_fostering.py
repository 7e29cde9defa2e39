"""CAM fostering in trials, in the space and in a study, on a tiny task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler

from lightning_modules.backbones import build
from lightning_modules.errors import InputError
from lightning_modules.image_store import load_images
from lightning_modules.splits import make_splits
from search.configuration import compose_settings
from search.settings import (
    DataSettings,
    FosteringSettings,
    ModelSettings,
    Settings,
    SpaceSettings,
    TrainerSettings,
)
from search.space import build_space, check_fostering
from search.task import Task, build_task
from search.trial import run_trial, train_final
from search.trial_result import EpochReport, TrialParams
from search.validation import parse
from tests.search.scripted_study import SPACE, Bench, ScriptedExecutor, curve

PARAMS = TrialParams("momentum", 1.0, 5)
MAPS = {"val_ce", "val_ce_normalised", "val_ca", "val_cd", "val_relative_difference", "val_dead_maps"}
TRAINED = {"train_ce", "train_dead_maps"}


@pytest.fixture(scope="module")
def make_task(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> Callable[..., Task]:
    folder = tmp_path_factory.mktemp("fostering")
    images = make_stripes(folder / "images", {"a": 8, "b": 8, "c": 8}, side=64)

    def build(
        beta: float = 0.0,
        *,
        block: str | None = None,
        searched: tuple[float, ...] | None = None,
        model: str = "efficientnet_lite0",
        cache: str = "cache",
        **trainer: Any,
    ) -> Task:
        size = (64, 64) if model != "lenet5" else (32, 32)
        settings = Settings(
            data=DataSettings(source="folder", size=size, views=1),
            model=ModelSettings(model, "none" if model == "lenet5" else "imagenet"),
            space=SpaceSettings(fostering=searched),
            trainer=TrainerSettings(
                epochs=2, batch_size=8, accelerator="cpu", fostering=FosteringSettings(beta, block), **trainer
            ),
        )
        found = load_images("folder", images, size=size, cache=folder / f"store{size[0]}")
        return build_task(settings, found, make_splits(found.index), cache=folder / cache)

    return build


def _curve(reports: tuple[EpochReport, ...], *, without: set[str] = frozenset()) -> list[Any]:
    return [(r.value, {n: v for n, v in r.metrics.items() if n not in without}) for r in reports]


def test_a_trial_with_beta_zero_is_the_plain_trial_and_only_measures(make_task: Callable[..., Task]) -> None:
    plain = run_trial(make_task(), PARAMS, seed=0)
    assert not (MAPS | TRAINED) & plain.metrics.keys()
    searched = run_trial(make_task(searched=(0.0, 5.0)), replace(PARAMS, fostering_beta=0.0), seed=0)
    assert searched.metrics.keys() - plain.metrics.keys() == MAPS
    assert _curve(searched.curve, without=MAPS) == _curve(plain.curve)
    explicit = run_trial(make_task(0.0), replace(PARAMS, fostering_beta=None), seed=0)
    assert _curve(explicit.curve) == _curve(plain.curve)


@pytest.mark.parametrize("depth", [5, 8])
def test_fostering_sharpens_the_maps_with_and_without_cache(make_task: Callable[..., Task], depth: int) -> None:
    params = replace(PARAMS, freeze_depth=depth)
    plain = run_trial(make_task(searched=(0.0, 5.0)), replace(params, fostering_beta=0.0), seed=0)
    task = make_task(5.0)
    fostered = run_trial(task, params, seed=0)
    assert fostered.curve[-1].metrics["val_ce"] < plain.curve[-1].metrics["val_ce"]
    assert fostered.metrics.keys() >= MAPS | TRAINED
    searched = run_trial(make_task(searched=(0.0, 5.0)), replace(params, fostering_beta=5.0), seed=0)
    without = run_trial(make_task(5.0, cache="none", cache_gigabytes=0.0), params, seed=0)
    assert _curve(fostered.curve) == _curve(searched.curve) == _curve(without.curve)


def test_the_final_fit_fosters_too(make_task: Callable[..., Task]) -> None:
    rows = make_task().splits.folds[0].train
    params = replace(PARAMS, freeze_depth=8)
    plain, fostered = (train_final(make_task(beta), params, 0, rows, 1) for beta in (0.0, 5.0))
    assert not torch.equal(*(net.head[-1].weight for net in (plain, fostered)))


def test_an_earlier_block_is_fostered_up_to_its_cut(make_task: Callable[..., Task]) -> None:
    task = make_task(0.1, block="stage5")
    curves = [run_trial(task, replace(PARAMS, freeze_depth=depth), seed=0).curve[-1].metrics for depth in (4, 5)]
    assert all(metrics["train_ce"] > 0 and metrics["train_loss"] < 1 for metrics in curves)
    with pytest.raises(ValueError, match="cut must be at most 5"):
        run_trial(task, replace(PARAMS, freeze_depth=6), seed=0)


def test_a_network_from_random_weights_in_micro_batches(make_task: Callable[..., Task]) -> None:
    """LeNet-5 has several layers in its head and no batch-norm; its loss is that of whole batches but for dead maps."""
    params = TrialParams("sgd", 0.1, 0)
    whole = run_trial(make_task(1.0, model="lenet5"), params, seed=0)
    task = make_task(1.0, model="lenet5")

    def refuse(block: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if block.training and torch.is_grad_enabled() and len(inputs[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    task.net.blocks[-1].register_forward_pre_hook(refuse)
    parts = run_trial(task, params, seed=0)
    assert parts.micro_batch == 4 < whole.micro_batch
    for result in (whole, parts):
        assert 0 < result.curve[0].metrics["train_dead_maps"] < 1
        assert result.curve[0].metrics["train_ce"] == pytest.approx(whole.curve[0].metrics["train_ce"], rel=0.1)


def test_a_fostered_trial_that_waited_is_the_same_trial(make_task: Callable[..., Task], tmp_path: Path) -> None:
    params = replace(PARAMS, freeze_depth=8)
    whole = run_trial(make_task(5.0), params, seed=3)
    file = tmp_path / "slot-0.pt"
    first = run_trial(make_task(5.0), params, seed=3, report=lambda _: "wait", checkpoint=file)
    assert first.stopped == "waiting" and len(first.curve) == 1
    assert _curve(run_trial(make_task(5.0), params, seed=3, checkpoint=file, told=1).curve) == _curve(whole.curve)


def test_under_bfloat16(make_task: Callable[..., Task]) -> None:
    metrics = run_trial(make_task(5.0, precision="bfloat16"), replace(PARAMS, freeze_depth=8), seed=0).metrics
    assert metrics["val_ce"] > 0 and metrics["train_loss"] < 2


def test_beta_is_a_dimension_where_it_is_asked_for() -> None:
    net = build("lenet5", classes=2, size=(32, 32), weights="none")
    settings = SpaceSettings(fostering=(0.0, 1.0, 10.0))
    space = build_space(settings, net, beta=1.0)
    assert space.default == TrialParams("momentum", 1.0, 0, 1.0)
    bench = Bench()
    bench.study.sampler = RandomSampler(seed=0)
    trials = [bench.study.ask() for _ in range(12)]
    drawn = [space.suggest(trial) for trial in trials]
    assert {params.fostering_beta for params in drawn} == {0.0, 1.0, 10.0}
    assert trials[0].distributions["fostering_beta"] == CategoricalDistribution((0.0, 1.0, 10.0))
    plain = build_space(SpaceSettings(), net, beta=1.0)
    assert plain.default.fostering_beta is None and plain.default.searched().keys() == {
        "optimizer", "lr_factor", "freeze_depth",
    }  # fmt: skip
    trial = bench.study.ask()
    assert plain.suggest(trial).fostering_beta is None and "fostering_beta" not in trial.params


def test_a_study_over_beta_asks_lost_trials_again_with_the_same_beta(monkeypatch: pytest.MonkeyPatch) -> None:
    space = replace(SPACE, default=replace(SPACE.default, fostering_beta=0.0), fostering=(0.0, 1.0, 10.0))
    monkeypatch.setattr("tests.search.scripted_study.SPACE", space)
    bench = Bench()
    executor = bench.run(ScriptedExecutor(lambda n, job: "crash" if n == 3 else curve(job.params)))
    attempts = [job for job in executor.jobs if job.slot == 3]
    assert len(attempts) == 2 and len({job.params for job in attempts}) == 1
    assert [job.params for job in executor.jobs[:3]] == [
        replace(space.default, fostering_beta=beta) for beta in (0.0, 1.0, 10.0)
    ]
    assert all(params["fostering_beta"] in space.fostering for params in bench.params())
    for run in bench.tracker.runs.values():
        assert run.params["fostering_beta"] in (0.0, 1.0, 10.0) and "beta=" in run.name


def test_a_study_without_fostering_has_the_parameters_it_had() -> None:
    bench = Bench()
    bench.run()
    assert all(params.keys() == {"optimizer", "lr_factor", "freeze_depth"} for params in bench.params())
    assert all("fostering_beta" not in run.params and "beta" not in run.name for run in bench.tracker.runs.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainer": {"fostering": {"beta": -1.0}}}, "trainer.fostering.beta must be a number >= 0 and <= 1000000"),
        ({"trainer": {"fostering": {"gamma": 1.0}}}, "unknown setting 'trainer.fostering.gamma'; did you mean"),
        ({"trainer": {"fostering": 1.0}}, "trainer.fostering is a group of settings, got 1.0"),
        ({"trainer": {"fostering": {"block": "top"}}}, "trainer.fostering.block needs trainer.fostering.beta above 0"),
        ({"space": {"fostering": [1.0, 10.0]}}, "trainer.fostering.beta must be one of space.fostering [1.0, 10.0]"),
        ({"space": {"fostering": [0.0, -1.0]}}, "space.fostering must be a list of"),
        ({"space": {"fostering": []}}, "space.fostering must be a list of"),
        ({"space": {"fostering": [0, 1, 1.0]}}, "space.fostering must not name one twice"),
    ],
)
def test_bad_settings_get_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse(values)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_target_that_trials_would_not_see_is_refused() -> None:
    def check(*arguments: str) -> None:
        settings = compose_settings(arguments)
        net = build(settings.model.name, classes=2, size=settings.data.size, weights=settings.model.weights)
        check_fostering(settings, build_space(settings.space, net, beta=settings.trainer.fostering.beta), net)

    lenet = ("model=lenet5", "data.size=[32,32]")
    check(*lenet, "trainer.fostering.beta=1", "trainer.fostering.block=c1")
    with pytest.raises(InputError, match="must be null or one of c1, c3, c5, got 'c9'"):
        check(*lenet, "trainer.fostering.beta=1", "trainer.fostering.block=c9")
    with pytest.raises(InputError, match=r"freeze depths of at most 4.*got up to 8: set space.freeze_depth=\[0,4\]"):
        check("trainer.fostering.beta=1", "trainer.fostering.block=stage4")
    with pytest.raises(InputError, match="got 1 x 1 at block top of 32 x 32 px; take larger images"):
        check("trainer.fostering.beta=1", "data.size=[32,32]")
    check("data.size=[32,32]")


def test_the_preset_is_schottls_experiment() -> None:
    settings = compose_settings(["experiment=fostering_resnet50"])
    assert settings.model.name == "resnet50" and settings.data.size == (192, 192)
    assert settings.trainer.epochs == 30 and settings.space.fostering == (0.0, 1.0, 10.0, 100.0)
    assert settings.space.optimizers == ("adam",) and settings.space.default_optimizer == "adam"
    assert settings.space.lr_factor == (1.0, 1.0) and settings.space.freeze_depth == (0, 0)
    net = build("resnet50", classes=2, size=(192, 192), weights="none")
    net.pretrained = True
    space = build_space(settings.space, net, beta=settings.trainer.fostering.beta)
    assert [params.fostering_beta for params in space.first] == [0.0, 1.0, 10.0, 100.0]
    assert {params.learning_rate for params in space.first} == {1e-3} and settings.search.trials == 4
