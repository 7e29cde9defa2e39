"""What the winner is calibrated with: images that no network of it has seen, and none of the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mlflow import MlflowClient

from lightning_modules.decisions.costs import Costs
from search import load_study as shown_study
from search.outcome.decisions import COVERAGES, decision_facts, read_decisions
from search.study.opening import load_study
from search.tracking.models import resolve_model
from search.tracking.tracker import tracking_uri

if TYPE_CHECKING:
    from search.outcome.out_of_sample import OutOfSample
    from tests.search.conftest import RunSearch


def answers(images: int, sharper: float = 1.0, a_group: int = 1, seed: int = 0) -> OutOfSample:
    """Of three classes, right as often as their probabilities say where `sharper` is 1."""
    from search.outcome.out_of_sample import OutOfSample

    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (images, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return OutOfSample(logits * sharper, labels, np.arange(images) // a_group)


def test_measured_on_test_images() -> None:
    facts = decision_facts(answers(300, 2.5), answers(400, 2.5, seed=1), ("a", "b", "c"))
    assert facts.temperature is not None and facts.temperature[1] < 2.5 < facts.temperature[2]
    assert facts.test is not None and facts.test_before is not None and facts.test.ece < facts.test_before.ece / 2
    assert (facts.measured_on, facts.impossible) == ("test images", ())
    for point in facts.points:
        assert point.covered.low is not None and point.covered.low < point.coverage  # kept, or more
        assert point.covered.high is not None and point.covered.high > point.coverage
    by_hand = [point.by_hand.value for point in facts.points if point.by_hand.value is not None]
    assert by_hand == sorted(by_hand) and by_hand[-1] > by_hand[0]  # a larger promise costs more hand work
    assert read_decisions(facts.to_json().encode()) == facts
    assert facts.metrics()["decision_covered/0.95"] == facts.points[2].covered.value


@pytest.mark.parametrize(("images", "a_group", "possible"), [(60, 1, 4), (60, 5, 2), (24, 1, 3)])
def test_what_so_few_images_allow(images: int, a_group: int, possible: int) -> None:
    facts = decision_facts(answers(images, a_group=a_group), None, ("a", "b", "c"))
    assert [point.coverage for point in facts.points] == list(COVERAGES[:possible])
    assert facts.impossible == COVERAGES[possible:]
    assert (facts.groups, facts.measured_on, facts.test) == (images // a_group, "calibration images", None)


@pytest.mark.parametrize(("made", "problem"), [
    (answers(19), "19 validation images, at least 20 are needed"),
    (answers(30, np.inf), "an answer on a validation image is not finite"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_cannot_be_calibrated(made: OutOfSample, problem: str) -> None:
    facts = decision_facts(made, answers(50), ("a", "b", "c"))
    assert (facts.problem, facts.temperature, facts.points) == (problem, None, ())
    assert made.scores is None
    assert read_decisions(facts.to_json().encode()) == facts


def test_what_each_way_to_decide_costs() -> None:
    costs = Costs(np.array([[0, 10, 10, 3], [10, 0, 10, 3], [10, 10, 0, 3]], np.float64))
    facts = decision_facts(answers(200), answers(400, seed=1), ("a", "b", "c"), costs=costs)
    cheapest, likeliest, by_hand = facts.costs
    assert [one.policy for one in facts.costs] == ["cheapest", "likeliest", "by hand"]
    assert (by_hand.cost, by_hand.low, by_hand.high, by_hand.by_hand) == pytest.approx((300, 300, 300, 1))
    assert cheapest.cost < min(likeliest.cost, by_hand.cost) and likeliest.by_hand == 0 < cheapest.by_hand < 1
    assert likeliest.low < likeliest.cost < likeliest.high
    assert facts.metrics()["decision_cost_by_hand"] == pytest.approx(300)
    assert read_decisions(facts.to_json().encode()) == facts


@pytest.mark.parametrize("command", ["search", "search.retrain"])
def test_a_cost_file_with_a_missing_class_is_refused(
    command: str, tmp_path: Path, stripes: Path, make_stripes: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import import_module

    months = make_stripes(tmp_path / "images" / "2020-01", {"a": 6, "b": 6}).parent
    make_stripes(months / "2020-02", {"a": 6, "b": 6}, seed=1)
    (tmp_path / "costs.csv").write_text("true,decided,cost\na,b,1\na,by hand,1\n", encoding="utf-8")
    words = ("data=folder", f"data.path={months}", f"decision.costs={tmp_path / 'costs.csv'}", "data.size=[32,32]",
             f"tracking.root={tmp_path / 'mlruns'}", "model=lenet5", "model.weights=none")  # fmt: skip
    assert import_module(f"{command}.__main__").main(words) == 2
    assert "costs.csv has no cost of 'b' decided as 'a' and 1 more" in capsys.readouterr().err
    assert not (tmp_path / "mlruns" / "mlflow.db").exists() and not (tmp_path / "mlruns" / "studies").exists()


def test_what_another_version_wrote_is_none() -> None:
    assert read_decisions(None) is None
    assert read_decisions(b'{"images": 3}') is None


@pytest.mark.slow
@pytest.mark.long  # a search in folds
def test_a_search_in_folds_is_calibrated_with_every_image_that_is_not_tested(
    tmp_path: Path, make_stripes: Callable[..., Path], tracking_root: Path, run_search_warm: RunSearch
) -> None:
    images = make_stripes(tmp_path / "images", {"a": 20, "b": 20, "c": 20})
    outcome = run_search_warm(
        "data=folder", f"data.path={images}", "data.size=[32,32]", "data.folds=2", "trainer.epochs=2",
        "search.trials=1",
        "executor=inline", "executor.threads=1", f"tracking.root={tracking_root}", "search.study=calibrated",
        "tracking.model_name=calibrated", "search.evidence=false",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "not calibrated" not in outcome.out
    study = load_study("calibrated", tracking_root)
    assert study.run_id is not None and study.winner is not None
    artifacts = tracking_root / "artifacts" / study.run_id / "artifacts"
    facts = read_decisions((artifacts / "decisions.json").read_bytes())
    assert facts is not None and facts.temperature is not None
    assert facts.images == 60 - study.winner.images[1] == study.winner.images[0]
    assert shown_study("calibrated", tracking_root).decisions == facts
    metrics = MlflowClient(tracking_uri(tracking_root)).get_run(study.run_id).data.metrics
    assert {name: metrics[name] for name in facts.metrics()} == pytest.approx(facts.metrics())
    report = json.loads((artifacts / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["decisions"]["temperature"] == list(facts.temperature)
    model = resolve_model("models:/calibrated@challenger", tracking_root)
    assert model.card.temperature == pytest.approx(facts.temperature[0])
    assert model.calibration is not None and len(model.calibration.scores) == facts.images
