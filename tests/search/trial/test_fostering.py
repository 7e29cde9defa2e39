"""CAM fostering in trials, in the space and in a study, on a tiny task."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from rich.console import Console

from lightning_modules.errors import InputError
from lightning_modules.images.splits import make_splits
from lightning_modules.images.store import load_images
from lightning_modules.networks.backbones import build
from search.command_line.interrupts import InterruptFlag
from search.executor.protocol import Finished
from search.outcome.front import log_front, pareto_front, print_front
from search.settings.compose import compose_settings
from search.settings.parsing import parse
from search.settings.schema import (
    DataSettings,
    FosteringSettings,
    ModelSettings,
    Settings,
    SpaceSettings,
    TrainerSettings,
)
from search.study.record import StudyRecord, finished_trials
from search.study.run import Clock, StudyRun
from search.study.sampler import SamplerView
from search.trial.files import TrialFiles
from search.trial.resolution import largest_size
from search.trial.result import EpochReport, TrialParams, TrialResult
from search.trial.space import build_space, check_fostering
from search.trial.task import Task, build_task
from search.trial.training import run_trial, train_final
from tests.search.study.scripted_study import SPACE, Bench, ScriptedExecutor, curve

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


@pytest.mark.slow
def test_a_trial_with_beta_zero_is_the_plain_trial_and_only_measures(make_task: Callable[..., Task]) -> None:
    plain = run_trial(make_task(), PARAMS, seed=0)
    assert not (MAPS | TRAINED) & plain.metrics.keys()
    searched = run_trial(make_task(searched=(0.0, 5.0)), replace(PARAMS, fostering_beta=0.0), seed=0)
    assert searched.metrics.keys() - plain.metrics.keys() == MAPS
    assert _curve(searched.curve, without=MAPS) == _curve(plain.curve)
    explicit = run_trial(make_task(0.0), replace(PARAMS, fostering_beta=None), seed=0)
    assert _curve(explicit.curve) == _curve(plain.curve)


@pytest.mark.parametrize("depth", [5, pytest.param(8, marks=pytest.mark.slow)])
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


@pytest.mark.slow
def test_an_earlier_block_is_fostered_up_to_its_cut(make_task: Callable[..., Task]) -> None:
    task = make_task(0.1, block="stage5")
    curves = [run_trial(task, replace(PARAMS, freeze_depth=depth), seed=0).curve[-1].metrics for depth in (4, 5)]
    assert all(metrics["train_ce"] > 0 and math.isfinite(metrics["train_loss"]) for metrics in curves)
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
    assert _curve(run_trial(make_task(5.0), params, seed=3, checkpoint=file, reported=1).curve) == _curve(whole.curve)


def test_under_bfloat16(make_task: Callable[..., Task]) -> None:
    metrics = run_trial(make_task(5.0, precision="bfloat16"), replace(PARAMS, freeze_depth=8), seed=0).metrics
    assert metrics["val_ce"] > 0 and math.isfinite(metrics["train_loss"])


def test_beta_is_a_dimension_where_it_is_asked_for() -> None:
    net = build("lenet5", classes=2, size=(32, 32), weights="none")
    settings = SpaceSettings(fostering=(0.0, 1.0, 10.0))
    space = build_space(settings, net, beta=1.0)
    assert space.default == TrialParams("adam", 1.0, 0, 1.0)
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


def test_a_study_over_beta_asks_lost_trials_again_with_the_same_beta() -> None:
    space = replace(SPACE, default=replace(SPACE.default, fostering_beta=0.0), fostering=(0.0, 1.0, 10.0))
    bench = Bench(space=space)
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
        net = build(settings.model.name, classes=2, size=largest_size(settings), weights=settings.model.weights)
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
    assert settings.space.optimizers == ("adam",) and settings.space.first_optimizer == "adam"
    assert settings.space.lr_factor == (1.0, 1.0) and settings.space.freeze_depth == (0, 0)
    net = build("resnet50", classes=2, size=(192, 192), weights="none")
    net.pretrained = True
    space = build_space(settings.space, net, beta=settings.trainer.fostering.beta)
    assert [params.fostering_beta for params in space.first] == [0.0, 1.0, 10.0, 100.0]
    assert {params.learning_rate for params in space.first} == {1e-3} and settings.search.trials == 4


def _both(**search: Any) -> Bench:
    return Bench(objective="accuracy+interpretability", pruner="none", **search)


def _with_maps(score: float, entropy: float, dead: float = 0.0) -> dict[str, float]:
    return {"val_macro_f1": score, "val_ce_normalised": entropy, "val_dead_maps": dead}


@dataclass
class _Mapping(ScriptedExecutor):
    """A landscape in which sharper maps cost score: both follow from the rate and beta."""

    def poll(self, timeout: float) -> Any:
        event = super().poll(timeout)
        if isinstance(event, Finished):
            params = next(job.params for job in self.jobs if job.slot == event.slot)
            entropy = 1 / (1 + params.lr_factor + (params.fostering_beta or 0))
            return replace(event, result=replace(event.result, metrics=_with_maps(event.result.value, entropy)))
        return event


def test_the_spread_of_maps_counts_a_dead_one_as_the_widest() -> None:
    def result(metrics: dict[str, float]) -> TrialResult:
        return TrialResult(0.5, 1.0, metrics, (), 1.0, 1.0, None)

    assert result(_with_maps(0.5, 0.4)).map_spread == pytest.approx(0.4)
    assert result(_with_maps(0.5, 0.4, 0.5)).map_spread == pytest.approx(0.7)
    assert result(_with_maps(0.5, math.nan, 1.0)).map_spread == 1.0
    assert result(_with_maps(0.5, math.nan, math.nan)).map_spread is None
    assert result({"val_macro_f1": 0.5}).map_spread is None
    assert "map_spread" not in result({}).summary()


def test_a_study_of_two_objectives_shows_both_to_its_sampler_and_prunes_nothing() -> None:
    bench = _both(trials=14)
    bench.run(_Mapping(lambda n, job: "diverge" if n == 4 else curve(job.params)))
    trials = finished_trials(bench.study)
    assert len(trials) == 14
    assert [t.user_attrs["outcome"] for t in trials].count("complete") == 13
    assert all(0 < t.user_attrs["map_spread"] < 1 for t in trials if t.user_attrs["slot"] != 4)
    seen = SamplerView(bench.study, both=True).study([], RandomSampler(seed=0))
    assert [d.name for d in seen.directions] == ["MAXIMIZE", "MINIMIZE"]
    values = [t.values for t in seen.trials]
    assert values[4] == [0.0, 1.0]
    assert values[5] == [trials[5].values[0], trials[5].user_attrs["map_spread"]]
    alone = Bench(pruner="none", trials=14)
    alone.run(_Mapping(lambda n, job: "diverge" if n == 4 else curve(job.params)))
    assert alone.params()[:4] == bench.params()[:4] and alone.params() != bench.params()


def test_the_front_is_what_no_trial_beats_in_both() -> None:
    bench = _both(trials=12)
    bench.run(_Mapping(lambda n, job: curve(job.params)))
    trials = finished_trials(bench.study)
    front = pareto_front(StudyRecord(bench.study).finished())
    points = [(t.values[0], t.user_attrs["map_spread"]) for t in trials]
    beaten = [any(a >= c and b <= d and (a, b) != (c, d) for a, b in points) for c, d in points]
    assert [t.slot for t in sorted(front, key=lambda t: t.number)] == [
        t.user_attrs["slot"] for t, lost in zip(trials, beaten, strict=True) if not lost
    ]
    assert front[0] == StudyRecord(bench.study).best()
    console = Console(width=100, record=True, file=io.StringIO())
    print_front(console, StudyRecord(bench.study), "macro_f1")
    text = console.export_text()
    assert all(f"{t.map_spread:.3f}" in text for t in front) and "No trial was stopped early" in text
    assert "beta" not in text  # it is not searched here


def test_the_front_is_logged_with_the_maps_of_its_ends(make_task: Callable[..., Task]) -> None:
    task = make_task(searched=(0.0, 5.0))
    study = optuna.create_study(direction="maximize")
    space = replace(SPACE, fostering=(0.0, 5.0))
    for slot, (beta, score, spread) in enumerate(((0.0, 0.9, 0.8), (5.0, 0.7, 0.2), (5.0, 0.6, 0.5))):
        params = replace(PARAMS, freeze_depth=8, fostering_beta=beta)
        kept = {"slot": slot, "map_spread": spread, "value": score, "outcome": "complete"}
        study.enqueue_trial(params.searched(), user_attrs=kept)
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, score)
    logged: dict[str, Any] = {}
    tracker = SimpleNamespace(
        log_table=lambda run, table, file: logged.__setitem__(file, table),
        log_figure=lambda run, figure, file: logged.__setitem__(file, figure),
    )
    run = StudyRun(task, StudyRecord(study), tracker, "parent", Console(), InterruptFlag(), Clock(), TrialFiles(None))
    log_front(run)
    assert list(logged["front.json"]["trial"]) == [0, 1]
    assert set(logged) == {"front.json", "figures/front.png", "figures/front_maps.png"}
    titles = [part.get_suptitle() for part in logged["figures/front_maps.png"].subfigs]
    assert titles[0] == "validation images" and "trial 0" in titles[1] and "trial 1" in titles[2]
    for name in ("figures/front.png", "figures/front_maps.png"):
        logged[name].savefig(io.BytesIO())
    logged.clear()
    log_front(run)  # the same study once more, after an interruption
    assert logged == {}


@pytest.mark.slow
@pytest.mark.long  # a search of two objectives
def test_a_search_for_both_from_the_command_line(
    run_search_warm: Callable[..., Any], make_stripes: Callable[..., Path], tmp_path: Path, tracking_root: Path
) -> None:
    images = make_stripes(tmp_path / "images", {"a": 12, "b": 12, "c": 12}, side=64)
    arguments = (
        "data=folder", f"data.path={images}", "data.size=[64,64]", "trainer.epochs=2", "search=interpretability",
        "search.trials=4", "space.fostering=[0,1]", "search.evidence=false", "search.study=both", "executor=inline",
        "executor.threads=1", f"tracking.root={tracking_root}",
    )  # fmt: skip
    outcome = run_search_warm(*arguments)
    assert outcome.code == 0, outcome.err
    assert "no trial is better in both" in outcome.out and "map spread" in outcome.out
    artifacts = [path.name for path in (tracking_root / "artifacts").rglob("front*")]
    assert {"front.json", "front.png", "front_maps.png"} <= set(artifacts)
    refused = run_search_warm(*arguments, "search.pruner=halving")
    assert refused.code == 2 and "needs search.pruner=none" in refused.err and refused.err.count("\n") == 1
