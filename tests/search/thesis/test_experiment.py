"""The thesis's experiments: refused elsewhere, labelled, resumed, and tabulated beside the thesis's own figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.thesis_figures import training_figure
from benchmarks.thesis_tables import DataSetRuns, by_data_set, standard_error, tables
from lightning_modules.errors import InputError
from search.settings.compose import compose_settings
from search.settings.schema import ModelSettings
from search.thesis.experiment import arms, available_model, frozen_name
from search.thesis.runs import ArmRun, PartRun, find_part, read_parts

BLOCKS = (*(f"stage{i}" for i in range(1, 8)), "top")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol=thesis"], "protocol=thesis, which scores the test set for every configuration, is for experiment="),
        (["thesis.part=lenet"], "got protocol=search with thesis.part=lenet"),
        (["experiment=thesis_lenet", "protocol=search"], "got protocol=search with thesis.part=lenet"),
        (["experiment=thesis_lenet", "thesis.rates=[0.1]"], "thesis.rates is for thesis.part=rates alone"),
        (["experiment=thesis_transfer", "thesis.maps=3"], "thesis.maps is for thesis.part=finetune alone"),
        (["experiment=thesis_transfer", "data.folds=3"], "thesis.part needs data.folds=1, got 3"),
        (["experiment=thesis_rates", "search.fresh=true"], "search.fresh=True has no effect on protocol=thesis"),
        (["experiment=thesis_rates", "search.trials=3"], "search.trials=3 has no effect on protocol=thesis"),
        (["experiment=thesis_rates", "executor.workers=1"], "executor.workers=1 has no effect on protocol=thesis"),
    ],
    ids=["alone", "part", "search", "rates", "maps", "folds", "fresh", "trials", "workers"],
)
def test_the_protocol_is_refused_elsewhere(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("[", r"\[")):
        compose_settings(overrides)


def test_retraining_refuses_the_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    from search.retrain.__main__ import main

    assert main(["experiment=thesis_lenet"]) == 2
    assert "protocol must be search for retraining, got thesis" in capsys.readouterr().err


def test_random_weights_are_never_called_transfer() -> None:
    with pytest.raises(InputError, match=r"transfers pre-trained weights, got model\.weights=none"):
        available_model(ModelSettings("vgg16", "none"))


def test_another_network_takes_the_place_of_vgg16_without_weights_and_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    model, why = available_model(ModelSettings("vgg16"))
    assert model == ModelSettings("efficientnet_lite0")
    assert why is not None and "vgg16-397923af.pth" in why
    with pytest.raises(InputError, match="resnet50"):
        available_model(ModelSettings("resnet50"))


def test_transfer_is_every_depth_with_every_optimizer() -> None:
    settings = compose_settings(["experiment=thesis_transfer"])
    found = list(arms(settings, settings.model, BLOCKS))
    assert len(found) == len({arm.name for arm in found}) == 9 * 5
    assert {arm.params.freeze_depth for arm in found} == set(range(9))
    assert frozen_name(BLOCKS, 0) == "all trained" and frozen_name(BLOCKS, 8) == "fixed features"
    assert frozen_name(BLOCKS, 3) == "frozen to stage3"


def test_rates_are_the_same_for_every_optimizer() -> None:
    settings = compose_settings(["experiment=thesis_rates", "thesis.rates=[0.01,0.3]"])
    found = list(arms(settings, settings.model, BLOCKS))
    assert {round(arm.params.learning_rate, 9) for arm in found} == {0.01, 0.3}
    assert len(found) == 10 and {arm.params.freeze_depth for arm in found} == {4}


def test_lenet_is_tanh_with_sgd_and_relu_with_adam() -> None:
    settings = compose_settings(["experiment=thesis_lenet"])
    found = [(arm.model.name, arm.params.optimizer) for arm in arms(settings, settings.model, ())]
    assert found == [("lenet5", "sgd"), ("lenet5_relu", "adam")] and settings.data.size == (224, 403)


def _arm(depth: int, optimizer: str, test: float, *, val: float = 0.9, diverged: bool = False) -> ArmRun:
    scores = {"final_train_accuracy": 1.0, "final_val_accuracy": val, "final_val_loss": 0.3}
    tested = {"test_accuracy": test, "test_weighted_f1": test - 0.01, "test_images": 72.0}
    params = {"network": "efficientnet_lite0", "weights": "imagenet", "optimizer": optimizer,
              "freeze_depth": str(depth), "learning_rate": "0.01"}  # fmt: skip
    name = f"{frozen_name(BLOCKS, depth)}, {optimizer}"
    curves = {"val_accuracy": [0.5, val], "train_accuracy": [0.6, 1.0]}
    return ArmRun(name, name, params, scores if diverged else scores | tested, curves, diverged)


def _part(part: str, *found: ArmRun) -> PartRun:
    tags = {"test_images": "72", "validation_images": "84", "train_images": "90", "blocks": json.dumps(BLOCKS)}
    return PartRun("run", part, "plates", tags, {}, found)


@pytest.fixture(scope="module")
def sets() -> list[DataSetRuns]:
    transfer = _part(
        "transfer", _arm(8, "nag", 0.70), _arm(3, "nag", 0.75, val=0.95), _arm(2, "nag", 56 / 72),
        _arm(3, "adam", 0.0, diverged=True), _arm(0, "nag", 0.6),
    )  # fmt: skip
    return by_data_set([_part("transfer", _arm(8, "nag", 0.1)), transfer, _part("finetune", _arm(0, "momentum", 0.76))])


def test_tables_stand_beside_the_thesis_with_standard_errors(sets: list[DataSetRuns]) -> None:
    text = tables(sets)
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    for words in (
        "| nag | 0.347 | 0.917 | 0.792 | 0.778 | 0.300 | 0.950 | 0.750 ± 0.051 | 0.740 |",  # Table 6
        "| adam | did not converge |  |  |  | diverged | diverged | diverged | diverged |",
        "| thesis, from Block1-3 | 0.347 | 0.917 | 0.792 | 0.778 |",  # Table 7
        "| fixed features | .850 | .814 | .653 | 1.000 | 0.900 | 0.700 ± 0.054 |",  # Table 8, the latest run
        "| to stage3 (Block1-3) | 0.750 ± 0.051 | diverged |",  # Table 9
    ):
        assert words in text


def test_what_the_test_images_permit_is_said_in_numbers(sets: list[DataSetRuns]) -> None:
    text = tables(sets)
    assert "72 test images, so one image is 0.014" in text
    assert "3 of 4 lie within two standard errors" in text
    assert "frozen to stage3, nag, has 0.750: choosing on the test images, as the thesis did, adds 0.028." in text


def test_the_figure_of_all_trainings_has_a_line_a_model(sets: list[DataSetRuns]) -> None:
    figure = training_figure(sets)
    assert len(figure.axes[0].get_lines()) == 6


@pytest.fixture(scope="module")
def lenet(stripes: Path, tracking_root: Path, run_search_warm: Callable[..., Any]) -> SimpleNamespace:
    arguments = (
        "experiment=thesis_lenet", "data=folder", f"data.path={stripes}", "data.size=[32,32]", "model.width=0.5",
        "trainer.epochs=2", "trainer.accelerator=cpu", "executor.threads=1", f"tracking.root={tracking_root}",
        "tracking.experiment=thesis tests",
    )  # fmt: skip
    outcome = run_search_warm(*arguments)
    assert outcome.code == 0, outcome.err
    (part,) = [p for p in read_parts(tracking_root, "thesis tests") if p.part == "lenet"]
    return SimpleNamespace(arguments=arguments, outcome=outcome, part=part, root=tracking_root)


def test_every_configuration_is_scored_on_the_test_images_and_labelled(lenet: SimpleNamespace) -> None:
    assert [run.arm for run in lenet.part.arms] == ["tanh, sgd", "ReLU, adam"]
    for run in lenet.part.arms:
        assert 0 <= run.metrics["test_accuracy"] <= 1 and len(run.curves["val_accuracy"]) == 2
        assert run.metrics["test_images"] == int(lenet.part.tags["test_images"]) > 0
        assert run.metrics["weight_change"] > 0 and run.params["network"].endswith("@0.5")
    assert (
        lenet.part.tags["protocol"] == "thesis"
        and "every configuration is scored" in lenet.part.tags["protocol.warning"]
    )
    assert "protocol=thesis: every configuration is scored on the test images" in lenet.outcome.out


def test_the_same_command_trains_nothing_twice(lenet: SimpleNamespace, run_search_warm: Callable[..., Any]) -> None:
    assert run_search_warm(*lenet.arguments).code == 0
    again = find_part(lenet.root, "thesis tests", lenet.part.tags["thesis_key"])
    assert again is not None and [r.run_id for r in again.arms] == [r.run_id for r in lenet.part.arms]


@pytest.mark.slow
def test_rates_at_two_depths_are_two_experiments(
    stripes: Path, tracking_root: Path, run_search_warm: Callable[..., Any]
) -> None:
    arguments = (
        "experiment=thesis_rates", "data=folder", f"data.path={stripes}", "data.size=[32,32]", "trainer.epochs=1",
        "trainer.accelerator=cpu", "executor.threads=1", f"tracking.root={tracking_root}", "thesis.rates=[0.01]",
        "tracking.experiment=thesis rates", "model.name=efficientnet_lite0", "space.optimizers=[momentum]",
    )  # fmt: skip
    for depth in (7, 8):
        outcome = run_search_warm(*arguments, f"space.default_freeze_depth={depth}")
        assert outcome.code == 0, outcome.err
    parts = read_parts(tracking_root, "thesis rates")
    assert [[run.freeze_depth for run in part.arms] for part in parts] == [[7], [8]]


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_best_partly_frozen_model(
    stripes: Path, tracking_root: Path, run_search_warm: Callable[..., Any]
) -> None:
    common = (
        "data=folder", f"data.path={stripes}", "data.size=[32,32]", "trainer.epochs=2", "trainer.accelerator=cpu",
        "executor.threads=1", f"tracking.root={tracking_root}", "tracking.experiment=thesis tests",
        "model.name=efficientnet_lite0",
    )  # fmt: skip
    early = run_search_warm("experiment=thesis_finetune", *common)
    assert early.code == 2 and "run experiment=thesis_transfer on the same images first" in early.err
    few = ("space.optimizers=[momentum,adam]", "space.freeze_depth=[7,8]")
    transfer = run_search_warm("experiment=thesis_transfer", *common, *few)
    assert transfer.code == 0, transfer.err
    tuned = run_search_warm("experiment=thesis_finetune", *common)
    assert tuned.code == 0, tuned.err
    (part,) = [p for p in read_parts(tracking_root, "thesis tests") if p.part == "finetune"]
    (run,) = part.arms
    assert run.arm.startswith("from frozen to stage7, ") and run.freeze_depth == 0
    assert run.metrics["weight_change"] < 0.01  # a very low rate
    drawn = tracking_root / "artifacts" / part.run_id / "artifacts" / "figures" / "maps_1.png"
    assert drawn.stat().st_size > 10_000
