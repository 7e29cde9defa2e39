"""Whole searches on a tiny folder, through the command line: what is printed, logged and kept agrees."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from lightning_modules.networks.model_file import load_model
from search.invocation import typed, typed_program
from search.study.record import finished_trials
from search.study.storage import open_storage
from search.tracking.tracker import tracking_uri

Run = Callable[..., SimpleNamespace]


def _study(root: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_storage(root / "studies" / f"{name}.journal"))


@pytest.fixture(scope="module")
def client(tracking_root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri(tracking_root), registry_uri=tracking_uri(tracking_root))


def _children(client: MlflowClient, parent: str) -> list[Any]:
    experiment = client.get_run(parent).info.experiment_id
    return list(client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", order_by=["tags.slot"]))


def test_what_is_printed(finished: SimpleNamespace) -> None:
    found, *lines = finished.outcome.out.splitlines()
    assert found == f"Found 36 files in 3 classes: {', '.join(f'{name} 12' for name in ('가로 줄무늬', '세로', '점'))}."
    assert lines[0] == "Images: 36 in 3 classes; 24 train, 6 validation, 6 test."
    assert lines[1] == "Network: efficientnet_lite0, pre-trained weights, 8 blocks on cpu."
    assert lines[2] == "Study: tiny, 4 trials."
    assert (
        lines[3] == f"Watch it live: {typed_program('optuna-dashboard')} {finished.root / 'studies' / 'tiny.journal'}"
    )
    trials = [line for line in lines[4:] if line.startswith("trial ")]
    assert {line.split()[1] for line in trials} == {"0", "1", "2", "3"}
    assert trials[0].startswith("trial   0  adam, learning rate 0.001, freeze depth 4: complete after 2 epochs")
    text = finished.outcome.out
    result = next(place for place, line in enumerate(lines) if line.startswith("Result: "))
    assert re.match(r"Result: [0-6] of 6 new images right \(\d+ to \d+ %\); ", lines[result])
    rest = lines[result + 1 :]
    assert sum(line.startswith("Winner: trial ") for line in rest) == 1
    assert any(line.startswith("Test scores on 6 images, read once: accuracy ") for line in rest)
    assert lines[-1] == f"All trials: {typed('ui', root=finished.root)}"
    assert not {"scorer", "tau", "prior", "Prior", "pruned", "macro_f1"} & set(re.findall(r"\w+", text))
    assert [line for line in finished.outcome.err.splitlines() if not line.startswith("  after ")] == []


def test_runs_and_study_agree(finished: SimpleNamespace, client: MlflowClient) -> None:
    study = _study(finished.root, finished.study)
    trials = finished_trials(study)
    parent = study.user_attrs["parent"]
    runs = {int(run.data.tags["slot"]): run for run in _children(client, parent)}
    assert sorted(runs) == [t.user_attrs["slot"] for t in trials] == [0, 1, 2, 3]
    for trial in trials:
        run = runs[trial.user_attrs["slot"]]
        assert (run.info.status, run.data.tags["status"]) == ("FINISHED", trial.user_attrs["outcome"])
        assert {n: run.data.params[n] for n in trial.params} == {n: str(v) for n, v in trial.params.items()}
        for name in ("value", "seconds", "epoch_equivalents", "epochs", "loss"):
            assert run.data.metrics[name] == pytest.approx(trial.user_attrs[name], rel=1e-12)
        history = client.get_metric_history(run.info.run_id, "val_macro_f1")
        assert {m.step: m.value for m in history} == trial.intermediate_values
        assert set(run.data.metrics) >= {"train_loss", "train_accuracy", "val_loss", "val_weighted_f1", "epoch_seconds"}


def test_the_parent_run_is_complete(finished: SimpleNamespace, client: MlflowClient, stripes: Path) -> None:
    study = _study(finished.root, finished.study)
    run = client.get_run(study.user_attrs["parent"])
    winner = study.user_attrs["winner"]
    assert run.info.status == "FINISHED" and run.info.run_name == "tiny"
    assert run.data.params["data.path"] == str(stripes) and run.data.params["trainer.epochs"] == "2"
    for name, value in winner["test"].items():
        assert run.data.metrics[f"test_{name}"] == value
    for name, (low, high) in winner["intervals"].items():
        assert (run.data.metrics[f"test_{name}_low"], run.data.metrics[f"test_{name}_high"]) == (low, high)
        assert low <= winner["test"][name] <= high
    assert (
        run.data.metrics["best_value"]
        == winner["value"]
        == max(t.values[0] for t in study.trials if t.state.name == "COMPLETE")
    )
    phases = {"images", "network", "tracking", "warmup", "trials", "winner", "figures"}
    assert {f"seconds_{phase}" for phase in phases} <= set(run.data.metrics)
    assert {"commit", "data_digest", "version.torch", "version.mlflow", "winner"} <= set(run.data.tags)
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == run.data.tags["data_digest"][:32]
    names = {
        artifact.path for folder in ("figures", "test") for artifact in client.list_artifacts(run.info.run_id, folder)
    }
    assert names - {"test/wrong_images.json"} == {  # of a report, if one was made since
        "figures/classes.png", "figures/training_curves.png", "figures/confusion.png", "figures/evidence.png",
        "figures/evidence_dark.png", "test/per_class.json", "test/confusion.json",
        "test/predictions.json",
    }  # fmt: skip


def test_answers_on_the_test_images_are_kept_from_their_one_reading(
    finished: SimpleNamespace, client: MlflowClient
) -> None:
    study = _study(finished.root, finished.study)
    winner, parent = study.user_attrs["winner"], study.user_attrs["parent"]
    file = client.download_artifacts(parent, "test/predictions.json")
    kept = json.loads(Path(file).read_text(encoding="utf-8"))
    rows = [dict(zip(kept["columns"], row, strict=True)) for row in kept["data"]]
    assert len(rows) == winner["images"][1] and {row["version"] for row in rows} == {winner["version"]}
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(winner["test"]["accuracy"])
    for row in rows:
        p = {name.removeprefix("p(").removesuffix(")"): value for name, value in row.items() if name.startswith("p(")}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5) and max(p, key=p.__getitem__) == row["predicted"]


def test_the_registered_model_is_the_one_that_was_tested(
    finished: SimpleNamespace, client: MlflowClient, stripes: Path
) -> None:
    from rich.console import Console

    from search.settings.compose import compose_settings
    from search.trial.preparation import load, split

    study = _study(finished.root, finished.study)
    winner = study.user_attrs["winner"]
    version = client.get_model_version("thawline", winner["version"])
    assert version.run_id == study.user_attrs["parent"]
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    model = load_model(Path(logged.artifact_location.removeprefix("file://")) / "artifacts" / "model")
    assert model.card.classes == tuple(sorted(folder.name for folder in stripes.iterdir()))
    assert (model.card.size, model.card.freeze_depth) == ((32, 32), winner["params"]["freeze_depth"])
    settings = compose_settings(finished.arguments)
    index = load(settings, Console(quiet=True)).index
    tested = [index.records[int(row)] for row in split(settings, index).test]
    hits = [model.card.classes[int(model.probabilities(model.read(r.path)).argmax())] == r.label for r in tested]
    assert sum(hits) / len(hits) == pytest.approx(winner["test"]["accuracy"])


def test_the_same_command_again_trains_nothing_and_reads_no_test_image(
    finished: SimpleNamespace, client: MlflowClient, run_search_warm: Run
) -> None:
    before = _study(finished.root, finished.study)
    runs = len(_children(client, before.user_attrs["parent"]))
    again = run_search_warm(*finished.arguments)
    assert again.code == 0, again.err
    after = _study(finished.root, finished.study)
    assert "Study: tiny, complete with 4 finished trials." in again.out
    assert "trial   0" not in again.out
    # Another study of this store may have taken the alias since; all else is the same.
    version = before.user_attrs["winner"]["version"]
    expected = finished.outcome.out.split("Result: ")[1]
    if str(client.get_registered_model("thawline").aliases["challenger"]) != version:
        expected = expected.replace("models:/thawline@challenger ", f"models:/thawline/{version} ")
    assert again.out.split("Result: ")[1] == expected
    assert after.user_attrs["test_reads"] == 1
    assert after.user_attrs["winner"] == before.user_attrs["winner"]
    assert len(after.trials) == 4 and len(_children(client, after.user_attrs["parent"])) == runs
    assert client.get_run(after.user_attrs["parent"]).info.status == "FINISHED"


@pytest.mark.slow
def test_more_trials_continue_and_fresh_starts_anew(
    tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Run
) -> None:
    arguments = (*tiny, "search.study=continued")
    assert run_search_warm(*arguments, "search.trials=2", "trainer.epochs=1").code == 0
    first = _kept(_study(tracking_root, "continued"))
    more = run_search_warm(*arguments, "search.trials=3", "trainer.epochs=1")
    assert "Study: continued, continued with 2 of 3 trials finished." in more.out
    second = _kept(_study(tracking_root, "continued"))
    assert len(first.params) == 2 and len(second.params) == 3
    assert second.params[:2] == first.params
    assert second.attrs["test_reads"] == 1 + (second.attrs["winner"] != first.attrs["winner"])
    assert f" images, read {'once' if second.attrs['test_reads'] == 1 else '2 times'}" in more.out
    anew = run_search_warm(*arguments, "search.trials=1", "trainer.epochs=1", "search.fresh=true")
    assert anew.code == 0 and "Study: continued, 1 trials." in anew.out
    third = _kept(_study(tracking_root, "continued"))
    assert len(third.params) == 1 and third.attrs["parent"] != first.attrs["parent"]


def _kept(study: optuna.Study) -> SimpleNamespace:
    """What the study holds now; the study itself reads its journal again at every look."""
    return SimpleNamespace(params=[t.params for t in study.trials], attrs=study.user_attrs)


@pytest.mark.slow
def test_folds(tiny: tuple[str, ...], tracking_root: Path, client: MlflowClient, run_search_warm: Run) -> None:
    outcome = run_search_warm(
        *tiny, "search.study=folds", "data.folds=2", "search.trials=1", "trainer.epochs=1", "search.pruner=none"
    )
    assert outcome.code == 0, outcome.err
    assert "validation in 2 folds, " in outcome.out
    study = _study(tracking_root, "folds")
    (trial,) = finished_trials(study)
    history = client.get_metric_history(trial.user_attrs["run_id"], "val_macro_f1")
    assert [m.step for m in sorted(history, key=lambda m: m.step)] == [1, 2]
    assert trial.values[0] == pytest.approx(sum(m.value for m in history) / 2)
    trained, tested = study.user_attrs["winner"]["images"]
    assert trained + tested == 36


@pytest.mark.slow
@pytest.mark.long  # a search of its own
def test_without_a_refit_the_winner_is_the_best_trials_network(
    tiny: tuple[str, ...], tracking_root: Path, client: MlflowClient, run_search_warm: Run
) -> None:
    arguments = [a for a in tiny if not a.startswith("tracking.report")]
    outcome = run_search_warm(*arguments, "search.study=as it is", "search.refit=false", "search.evidence=false")
    assert outcome.code == 0, outcome.err
    study = _study(tracking_root, "as it is")
    winner, parent = study.user_attrs["winner"], study.user_attrs["parent"]
    assert winner["images"][0] == 24 and winner["refit"] is False
    report = tracking_root / "artifacts" / parent / "artifacts" / "report"
    findings = json.loads((report / "report.json").read_text(encoding="utf-8"))["findings"]
    assert findings["score"] == findings["trial_score"] == winner["value"]
    page = " ".join((report / "report.html").read_text(encoding="utf-8").split())
    assert "exactly what the trial had reported. It is the winner." in page
    assert not (tracking_root / "studies" / "as it is.waiting").exists()


@pytest.mark.slow
def test_lenet5(tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Run) -> None:
    outcome = run_search_warm(*tiny, "search.study=lenet", "model=lenet5", "search.trials=2", "trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    assert "Network: lenet5, random weights, 3 blocks on cpu." in outcome.out
    assert [t.params["freeze_depth"] for t in finished_trials(_study(tracking_root, "lenet"))] == [0, 0]


@pytest.mark.slow
def test_bad_images_are_set_aside_by_name(
    tmp_path: Path, make_stripes: Callable[..., Path], tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Run
) -> None:
    """The folder itself has a name that is not UTF-8, so every line and every parameter that shows it must cope."""
    root = make_stripes(tmp_path / os.fsdecode(b"lot\xff 3"), {"a": 8, "b": 8})
    (root / "a" / os.fsdecode(b"none \xe9.png")).touch()
    arguments = [a for a in tiny if not a.startswith("data.path")]
    outcome = run_search_warm(
        *arguments, f"data.path={root}", "data.on_bad=set_aside", "model=lenet5", "search.trials=1",
        "trainer.epochs=1", "search.study=set aside",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "Set aside: 1 inputs." in outcome.out
    assert "none \\xe9.png: empty file (0 bytes)" in outcome.out
    assert [line for line in outcome.err.splitlines() if not line.startswith("  after ")] == []


def test_no_run_is_left_open(finished: SimpleNamespace) -> None:
    with sqlite3.connect(finished.root / "mlflow.db") as database:
        studies = database.execute(
            "select r.name, r.status from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'study'"
        ).fetchall()
    ours = {name: status for name, status in studies if name in ("tiny", "continued", "folds", "lenet", "set aside")}
    assert set(ours.values()) == {"FINISHED"}


def test_nothing_is_written_outside_the_tracking_root(
    finished: SimpleNamespace, run_search_warm: Run, tmp_path: Path
) -> None:
    assert run_search_warm(*finished.arguments, cwd=tmp_path).code == 0
    assert list(tmp_path.iterdir()) == []
    assert {entry.name for entry in finished.root.iterdir()} <= {
        "artifacts", "cache", "mlflow.db", "mlflow.db-shm", "mlflow.db-wal", "mlflow.lock", "studies",
    }  # fmt: skip
    assert not list((finished.root / "studies").glob("*.owner.json"))
    lines = (finished.root / "studies" / "tiny.journal").read_text().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
