"""What MLflow holds of a finished study, read back through its client: names, notes, tags, numbers, tables, lineage."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from search.notebook import Study, load_study
from search.study.notes import outcome_tags, run_name, start_tags
from search.tracking.tracker import MODEL_NOTE_BEGINS, NOTE, Tracker, tracking_uri
from search.trial.result import TrialParams

NAG = TrialParams("nag", 0.21, 3)
NUMBERS = {"value": 0.9123, "epochs": 2, "seconds": 9.1, "epoch_equivalents": 1.25}


@pytest.fixture(scope="module")
def client(tracking_root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri(tracking_root), registry_uri=tracking_uri(tracking_root))


@pytest.fixture
def default_store(tracking_root: Path) -> None:
    """MLflow's functions that ask the default store ask this one; its own default is a file in the working folder."""
    mlflow.set_tracking_uri(tracking_uri(tracking_root))


@pytest.fixture(scope="module")
def study(finished: SimpleNamespace) -> Study:
    return load_study(finished.study, finished.root)


@pytest.fixture(scope="module")
def parent(study: Study, client: MlflowClient) -> Run:
    assert study.run_id is not None
    return client.get_run(study.run_id)


@pytest.fixture(scope="module")
def children(parent: Run, client: MlflowClient) -> dict[int, Run]:
    found = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {int(run.data.tags["slot"]): run for run in found}


def test_a_run_is_named_by_what_it_tried() -> None:
    assert run_name(7, NAG) == "t07 nag depth 3"
    assert run_name(123, TrialParams("adamw", 1.0, 0, 0.1)) == "t123 adamw depth 0 beta=0.1"


def test_a_note_says_what_became_of_a_trial_a_line_a_number() -> None:
    begun = start_tags(NAG, "s", "uniform")
    assert begun[NOTE] == "nag, learning rate 2.1e-3 (0.21 x its reference), freeze depth 3."
    assert (begun["study"], begun["prior"], begun["freeze_depth"], begun["status"]) == ("s", "uniform", 3, "running")
    ended = outcome_tags(NAG, "macro_f1", "pruned", "worse than\nnine", NUMBERS)
    assert (ended["status"], ended["reason"]) == ("pruned", "worse than\nnine")
    assert ended[NOTE].splitlines()[2:] == [
        "- outcome: **pruned**: worse than nine",
        "- validation macro_f1: 0.9123, after the last epoch",
        "- trained: 2 epochs in 9 s",
        "- cost: 1.25 epochs of training everything",
    ]
    assert "validation" not in outcome_tags(NAG, "macro_f1", "failed", "MemoryError: 3 GB", {})[NOTE]


def test_every_child_has_all_parameters_and_final_numbers(study: Study, children: dict[int, Run]) -> None:
    assert sorted(children) == [trial.slot for trial in study.trials] == [0, 1, 2, 3]
    assert len({frozenset(run.data.params) for run in children.values()}) == 1
    assert len({frozenset(run.data.metrics) for run in children.values()}) == 1, "pruned ones too"
    for trial in study.trials:
        run = children[trial.slot]
        params, tags = run.data.params, run.data.tags
        tried = TrialParams(trial.optimizer, trial.lr_factor, trial.freeze_depth)
        assert run.info.run_name == run_name(trial.slot, tried)
        assert float(params["learning_rate"]) == pytest.approx(trial.learning_rate)
        assert params.keys() == {"optimizer", "lr_factor", "learning_rate", "freeze_depth", "seed"}
        assert run.data.metrics["final_val_macro_f1"] == run.data.metrics["value"] == trial.value
        assert (tags["optimizer"], tags["freeze_depth"]) == (trial.optimizer, str(trial.freeze_depth))
        assert (tags["status"], tags["reason"]) == (trial.outcome, trial.reason)
        assert (tags["study"], tags["prior"]) == ("tiny", "uniform")
        assert f"**{trial.outcome}**" in tags[NOTE] and f"{trial.value:.4f}" in tags[NOTE]


@pytest.mark.slow
def test_pruned_trials_are_as_complete_and_say_why(tracking_root: Path, client: MlflowClient) -> None:
    from benchmarks.driver import made_up_study

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tracker = Tracker(tracking_root, "made up")
    parent = made_up_study(tracker, tracking_root, trials=12)
    optuna.logging.set_verbosity(level)
    runs = client.search_runs([tracker.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 12
    assert len({frozenset(run.data.params) for run in runs}) == 1
    assert len({frozenset(run.data.metrics) for run in runs}) == 1
    pruned = [run for run in runs if run.data.tags["status"] == "pruned"]
    assert 0 < len(pruned) < 12
    for run in pruned:
        reason = run.data.tags["reason"]
        assert reason and f"- outcome: **pruned**: {reason}\n" in run.data.tags[NOTE]
        found = client.search_runs([tracker.experiment_id], f"tags.reason = '{reason}'")
        assert run.info.run_id in {one.info.run_id for one in found}


def test_epoch_curves_have_the_same_steps(study: Study, children: dict[int, Run], client: MlflowClient) -> None:
    for trial in study.trials:
        history = client.get_metric_history(children[trial.slot].info.run_id, "val_macro_f1")
        assert [point.step for point in history] == list(range(1, trial.epochs + 1))


def test_trials_are_found_by_their_tags(study: Study, parent: Run, client: MlflowClient) -> None:
    def slots(query: str) -> list[int]:
        found = client.search_runs([parent.info.experiment_id], f"tags.study = 'tiny' and {query}")
        return sorted(int(run.data.tags["slot"]) for run in found)

    assert slots("tags.status = 'pruned'") == [t.slot for t in study.trials if t.outcome == "pruned"]
    first = study.trials[0]
    same = [t.slot for t in study.trials if (t.optimizer, t.freeze_depth) == (first.optimizer, first.freeze_depth)]
    assert slots(f"tags.optimizer = '{first.optimizer}' and tags.freeze_depth = '{first.freeze_depth}'") == same


def test_the_parent_says_what_won(study: Study, parent: Run) -> None:
    winner, note = study.winner, parent.data.tags[NOTE]
    assert winner is not None and winner.test is not None and winner.intervals is not None
    assert note.startswith(f"**Search `tiny`. Winner: trial {winner.slot}**, {winner.params['optimizer']}, ")
    low, high = winner.intervals["accuracy"]
    assert f"- accuracy: **{winner.test['accuracy']:.4f}** ({low:.3f} to {high:.3f})" in note
    assert f"Test scores on {winner.images[1]} images, read once (95 % intervals):" in note
    assert f"- model: `thawline`, version {winner.version}\n" in note
    assert parent.data.params["model.name"] in note
    assert parent.data.tags["mlflow.source.git.commit"] == parent.data.tags["commit"]


def test_tables_are_read_with_mlflows_own_function(
    study: Study, parent: Run, client: MlflowClient, default_store: None
) -> None:
    def table(name: str) -> dict[str, list[object]]:
        found = client.load_table(parent.info.experiment_id, name, run_ids=[parent.info.run_id])
        return {str(column): list(found[column]) for column in found}

    confusion, classes = table("test/confusion.json"), table("test/per_class.json")
    assert confusion["true class"] == classes["class"] == list(confusion)[1:]
    assert study.winner is not None
    assert sum(int(n) for name in classes["class"] for n in confusion[str(name)]) == study.winner.images[1]  # type: ignore[call-overload]
    assert {"scorer", "chosen_depth", "kendall_tau", "regret"} <= table("scorecard.json").keys()
    assert table("scorecard.json")["scorer"] == [row.scorer for row in study.scorecard]


def test_maps_are_a_slider_over_the_blocks(study: Study, parent: Run, client: MlflowClient) -> None:
    evidence = study.evidence
    assert evidence is not None and evidence.maps is not None
    pattern = re.compile(r"images/maps~before training\+step\+(\d+)\+timestamp\+\d+\+[-0-9a-f]+\.png")
    files = [file.path for file in client.list_artifacts(parent.info.run_id, "images")]
    steps = {int(found[1]): path for path in files if (found := pattern.fullmatch(path))}
    assert sorted(steps) == list(range(len(evidence.blocks) + 1))
    folder = Path(client.download_artifacts(parent.info.run_id, "images")).parent
    pictures = [np.asarray(Image.open(folder / steps[step])) for step in sorted(steps)]
    assert len({picture.shape for picture in pictures}) == 1
    assert not np.array_equal(pictures[1], pictures[2])
    assert parent.data.tags["mlflow.loggedImages"] == "True"


def test_the_model_is_traced_to_its_run_and_its_scores(study: Study, parent: Run, client: MlflowClient) -> None:
    winner = study.winner
    assert winner is not None and winner.test is not None
    version = client.get_model_version("thawline", winner.version)
    assert version.run_id == parent.info.run_id and version.tags["study"] == "tiny"
    assert version.description and f"{winner.test['accuracy']:.4f}" in version.description
    assert version.source and parent.outputs
    model_id = version.source.removeprefix("models:/")
    logged = client.get_logged_model(model_id)
    assert logged.source_run_id == parent.info.run_id
    scores = {metric.key: metric.value for metric in logged.metrics or ()}
    assert {name: scores[f"test_{name}"] for name in winner.test} == winner.test
    (output,) = parent.outputs.model_outputs
    assert output.model_id == model_id
    model = client.get_registered_model("thawline")
    assert model.description.startswith(MODEL_NOTE_BEGINS) and model.aliases["challenger"]


def test_a_description_that_a_user_wrote_stays(
    finished: SimpleNamespace, study: Study, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    tracker = Tracker(finished.root, "thawline")
    run = tracker.start_parent("by hand", {}, {})
    tracker.register(run, tmp_path, model_name="described", alias="challenger", tags={}, note="the first")
    assert client.get_registered_model("described").description.endswith("Newest, version 1: the first")
    client.update_registered_model("described", "Ours, do not touch")
    tracker.register(run, tmp_path, model_name="described", alias="challenger", tags={}, note="the second")
    assert client.get_registered_model("described").description == "Ours, do not touch"
    assert client.get_model_version("described", "2").description == "the second"
    tracker.finish(run, "FINISHED")


def test_a_table_that_is_logged_again_replaces_the_first(
    finished: SimpleNamespace, client: MlflowClient, default_store: None
) -> None:
    import pandas as pd

    tracker = Tracker(finished.root, "thawline")
    run = tracker.start_parent("two tables", {}, {})
    for number in (1, 2):
        tracker.log_table(run, pd.DataFrame({"a": [number]}), "t.json")
    assert list(client.load_table(tracker.experiment_id, "t.json", run_ids=[run])["a"]) == [2]
    tracker.finish(run, "FINISHED")
