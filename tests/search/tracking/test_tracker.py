"""Runs as MLflow keeps them: batches, states, figures, data sets, and stores that several processes open."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from search.tracking.tracker import Tracker, tracking_uri


@pytest.fixture(scope="module")
def tracker(tracking_root: Path) -> Tracker:
    return Tracker(tracking_root, "of test_tracking 강판")


@pytest.fixture(scope="module")
def client(tracking_root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri(tracking_root), registry_uri=tracking_uri(tracking_root))


@pytest.fixture
def parent(tracker: Tracker) -> str:
    return tracker.start_parent("study", {"seed": 0}, {"study": "study"})


def _artifacts(client: MlflowClient, run_id: str) -> Path:
    return Path(unquote(urlparse(client.get_run(run_id).info.artifact_uri).path))


def test_nothing_leaves_the_machine_and_no_pickle_is_loaded() -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_the_store_is_sqlite_with_a_write_ahead_log_and_artifacts_beside_it(
    tracker: Tracker, client: MlflowClient, tracking_root: Path
) -> None:
    with sqlite3.connect(tracking_root / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    experiment = client.get_experiment(tracker.experiment_id)
    assert experiment.name == "of test_tracking 강판"
    assert experiment.artifact_location == (tracking_root / "artifacts").as_uri()
    assert Tracker(tracking_root, "of test_tracking 강판").experiment_id == tracker.experiment_id


def test_parameters_of_any_number_and_length_are_logged(tracker: Tracker, client: MlflowClient) -> None:
    params = {f"p{number}": number for number in range(250)} | {"long": "x" * 10_000, "none": None, "한글": "개재물"}
    run_id = tracker.start_parent("many", params, {"n": 3})
    run = client.get_run(run_id)
    assert len(run.data.params) == 253
    assert (
        run.data.params["p249"] == "249" and run.data.params["한글"] == "개재물" and run.data.params["none"] == "None"
    )
    assert run.data.params["long"].startswith("x" * 5000) and run.data.params["long"].endswith("…")
    assert run.data.tags["n"] == "3" and run.info.run_name == "many" and run.info.status == "RUNNING"


def test_metrics_of_an_epoch_are_one_batch_and_infinite_ones_are_left_out(
    tracker: Tracker, client: MlflowClient, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, **more: object) -> object:
        batches.append(len(more.get("metrics", ())))  # type: ignore[arg-type]
        return log_batch(self, run_id, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    trial = tracker.start_trial(parent, "t00", {}, {})
    batches.clear()
    for step in (1, 2):
        values = {"loss": 1.0 / step, "f1": 0.5, "nan": float("nan"), "inf": float("inf"), "low": -float("inf")}
        tracker.log(trial, values, step=step, tags={"status": f"epoch {step}"})
    assert batches == [2, 2]
    assert [(m.step, m.value) for m in client.get_metric_history(trial, "loss")] == [(1, 1.0), (2, 0.5)]
    run = client.get_run(trial)
    assert set(run.data.metrics) == {"loss", "f1"}
    assert run.data.tags["status"] == "epoch 2" and run.data.tags["mlflow.parentRunId"] == parent


@pytest.mark.parametrize("killed", [False, True])
def test_an_epoch_that_ended_a_trial_is_logged_with_what_became_of_it(
    tracker: Tracker, client: MlflowClient, parent: str, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    trial = tracker.start_trial(parent, "t00", {}, {})
    batches: list[str] = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, **more: object) -> object:
        batches.append(run_id)
        return log_batch(self, run_id, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    if killed:
        tracker.kill(trial, {2: {"loss": 0.5, "nan": float("nan")}})
    else:
        tracker.log(trial, {"value": 0.25}, step=2, tags={"status": "pruned"}, earlier={2: {"loss": 0.5}})
    assert batches == [trial]
    assert [(m.step, m.value) for m in client.get_metric_history(trial, "loss")] == [(2, 0.5)]
    run = client.get_run(trial)
    assert run.data.metrics == ({"loss": 0.5} if killed else {"loss": 0.5, "value": 0.25})
    assert run.data.tags["status"] == ("killed" if killed else "pruned")


def test_the_latest_value_is_the_last_one_logged_though_the_clock_was_set_back(
    tracking_root: Path, client: MlflowClient, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for value, seconds in ((0.9, 3600.0), (0.5, 0.0), (0.7, -3600.0), (0.6, -3600.0)):
        monkeypatch.setattr("search.tracking.tracker.time.time", lambda seconds=seconds: now + seconds)
        tracker = Tracker(tracking_root, "thawline")  # as the next call of the search has one of its own
        tracker.log(parent, {"score": value})
        assert client.get_run(parent).data.metrics["score"] == value


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_is_closed_as_said(tracker: Tracker, client: MlflowClient, parent: str, status: str) -> None:
    tracker.finish(parent, status)
    assert client.get_run(parent).info.status == status
    tracker.resume(parent)
    assert client.get_run(parent).info.status == "RUNNING"
    tracker.finish(parent, "FINISHED")


def test_open_runs_of_this_study_alone_are_killed(tracker: Tracker, client: MlflowClient, parent: str) -> None:
    other = tracker.start_parent("other", {}, {})
    done, lost, foreign = (tracker.start_trial(p, "t", {}, {"status": "running"}) for p in (parent, parent, other))
    tracker.finish(done, "FINISHED")
    assert tracker.kill_open_runs(parent) == 1
    assert tracker.kill_open_runs(parent) == 0
    assert [client.get_run(r).info.status for r in (done, lost, foreign, parent)] == [
        "FINISHED", "KILLED", "RUNNING", "RUNNING",
    ]  # fmt: skip
    tags = client.get_run(lost).data.tags
    assert (tags["status"], tags["reason"]) == ("killed", "the search was interrupted")


def test_what_a_killed_driver_left_of_this_study_is_closed(tracker: Tracker, client: MlflowClient, parent: str) -> None:
    lost, other = (tracker.start_parent("s", {}, {"study": name}) for name in ("lost", "other"))
    child = tracker.start_trial(lost, "t", {}, {})
    tracker.kill_open_study("lost")
    states = [client.get_run(run).info.status for run in (lost, child, other, parent)]
    assert states == ["KILLED", "KILLED", "RUNNING", "RUNNING"]


def test_bytes_that_are_not_text_are_escaped(tracker: Tracker, client: MlflowClient) -> None:
    run_id = tracker.start_parent("odd", {"path": "lot\udcff"}, {"where": "lot\udcff"})
    tracker.log(run_id, {}, tags={"reason": "no file caf\udce9"})
    run = client.get_run(run_id)
    assert run.data.params["path"] == run.data.tags["where"] == "lot\\xff"
    assert run.data.tags["reason"] == "no file caf\\xe9"
    tracker.log_dataset(run_id, pd.DataFrame({"class": ["a"]}), name="s", source="lot\udcff", digest="0" * 32)


def test_texts_tables_and_figures_are_artifacts(tracker: Tracker, client: MlflowClient, parent: str) -> None:
    tracker.log_text(parent, "Traceback 강", "traceback.txt")
    tracker.log_table(parent, pd.DataFrame({"class": ["점"], "f1": [0.5]}), "test/per_class.json")
    figure = Figure()
    figure.subplots().plot([0, 1])
    tracker.log_figure(parent, figure, "figures/curve.png")
    folder = _artifacts(client, parent)
    assert (folder / "traceback.txt").read_text(encoding="utf-8") == "Traceback 강"
    assert json.loads((folder / "test" / "per_class.json").read_text()) == {
        "columns": ["class", "f1"],
        "data": [["점", 0.5]],
    }
    assert (folder / "figures" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_data_set_is_an_input_with_its_digest(tracker: Tracker, client: MlflowClient, parent: str) -> None:
    counts = pd.DataFrame({"class": ["점", "세로"], "train": [3, 4], "test": [1, 0]})
    tracker.log_dataset(parent, counts, name="강판", source="a/b", digest="0123456789abcdef" * 2)
    (found,) = client.get_run(parent).inputs.dataset_inputs
    assert found.dataset.name == "강판" and found.dataset.digest == "0123456789abcdef" * 2
    assert json.loads(found.dataset.profile) == {"num_rows": 2, "num_elements": 6}


def test_what_a_killed_driver_registered_is_forgotten(tracker: Tracker, client: MlflowClient, parent: str) -> None:
    """Versions beyond the last that the study knows; those of other runs, and those that somebody named, stay."""
    name, other = "lost versions", tracker.start_parent("other", {}, {})
    client.create_registered_model(name)
    for run, alias in ((parent, None), (parent, "challenger"), (other, None), (parent, "champion")):
        version = client.create_model_version(name, f"runs:/{run}/model", run)
        if alias is not None:
            client.set_registered_model_alias(name, alias, version.version)
    tracker.forget_versions(parent, name, "challenger", after=1)
    assert sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'")) == [1, 3, 4]
    assert tracker.aliases(name) == {"champion": "4"}
    tracker.forget_versions(parent, name, "challenger", after=0)
    assert sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'")) == [3, 4]
    client.delete_registered_model(name)
