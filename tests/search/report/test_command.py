"""`python -m search.report` on a finished study: what the page says is what MLflow holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from scipy.stats import binomtest

from search.invocation import typed
from search.outcome.test_predictions import ARTIFACT as PREDICTED
from search.pages.numbers import written
from search.report.__main__ import main
from search.report.findings import ARTIFACT, MAP_MEASURES, PREDICTIONS
from search.study.opening import load_or_create, load_study
from search.tracking.tracker import Tracker, tracking_uri
from tests.search.report.page_reader import PageReader

NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.,]*(?![\w])")


@pytest.fixture(scope="module")
def reported(finished: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The report of the session's finished study: `code`, `html`, `data`, `client`, `run`, `children`."""
    to = tmp_path_factory.mktemp("report") / "page.html"
    code = main([f"study={finished.study}", f"root={finished.root}", f"to={to}"])
    client = MlflowClient(tracking_uri(finished.root), registry_uri=tracking_uri(finished.root))
    study = load_study(finished.study, finished.root)
    assert study.run_id is not None
    artifacts = finished.root / "artifacts" / study.run_id / "artifacts"
    return SimpleNamespace(
        code=code,
        html=to.read_text(encoding="utf-8"),
        data=json.loads((artifacts / "report" / "report.json").read_text(encoding="utf-8")),
        artifacts=artifacts,
        client=client,
        run=client.get_run(study.run_id),
        study=study,
        root=finished.root,
    )


def test_the_page_is_logged_with_the_run(reported: SimpleNamespace) -> None:
    assert reported.code == 0
    assert (reported.artifacts / "report" / "report.html").read_text(encoding="utf-8") == reported.html
    assert len(reported.html.encode()) < 8_000_000
    assert reported.run.info.status == "FINISHED"


DERIVED = {
    "/block_count", "/classes/*/images", "/classes/*/precision", "/classes/*/recall_high", "/classes/*/recall_low",
    "/confusion/counts/*/*", "/cost/epoch_equivalents",
    "/cost/epochs", "/cost/phases/*/calls", "/cost/seconds", "/cost/trial_seconds", "/depth_numbers/*",
    "/findings/judged", "/findings/mapped", "/findings/measures/*/area", "/findings/measures/*/dead",
    "/findings/measures/*/dispersion", "/findings/measures/*/entropy", "/findings/measures/*/height",
    "/findings/measures/*/relative_difference", "/findings/measures/*/width",
    "/findings/score", "/findings/training_images", "/finished", "/heat_map/*/trials", "/rival/difference",
    "/rival/freeze_depth", "/rival/noise", "/rival/slot", "/scorecard/*/chosen", "/scorecard/*/depths",
    "/scorecard/*/order/*", "/scorecard/*/regret", "/scorecard/*/seconds", "/scorecard/*/tau",
    "/needs/*/high", "/needs/*/images", "/needs/*/low", "/needs/*/right", "/needs/*/training", "/trials/*/slot",
    "/verdict/alone/by_hand", "/verdict/alone/decided", "/verdict/alone/wrong", "/verdict/high", "/verdict/images",
    "/verdict/low", "/verdict/proven", "/verdict/right", "/verdict/unproven", "/verdict/weakest/images",
    "/verdict/weakest/right", "/winner/epochs", "/winner/more_epochs", "/winner/tested", "/winner/together",
    "/winner/trained",
    "/wrong/cells/*", "/wrong/found", "/wrong/images/*/probability", "/wrong/images/*/true_probability",
    "/wrong/judged", "/wrong/silent",
}  # fmt: skip
"""Numbers of the page that are no metric or parameter; the second test derives each from what MLflow holds."""


def test_every_number_is_the_one_in_mlflow(reported: SimpleNamespace) -> None:
    runs: dict[str, Any] = {"": reported.run.data}
    looked_up = 0
    for number in PageReader(reported.html).numbers:
        attributes = number.attributes
        value: Any = reported.data
        for part in attributes["data-source"].strip("/").split("/"):
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert float(attributes["value"]) == value, attributes
        assert number.text == written(value, attributes.get("data-form", "")), attributes
        run = attributes.get("data-run", "")
        if run not in runs:
            runs[run] = reported.client.get_run(run).data
        if not {"data-metric", "data-param"} & attributes.keys():
            assert re.sub(r"/\d+", "/*", attributes["data-source"]) in DERIVED, attributes
        if name := attributes.get("data-metric"):
            assert runs[run].metrics[name] == pytest.approx(value, abs=1e-12), attributes
            looked_up += 1
        if name := attributes.get("data-param"):
            assert float(runs[run].params[name]) == pytest.approx(value, rel=1e-12), attributes
            looked_up += 1
    assert looked_up > 20
    assert len(runs) == 5, "the parent and four trials"


def test_numbers_that_are_no_metrics_follow_from_what_mlflow_holds(reported: SimpleNamespace) -> None:
    data, client = reported.data, reported.client
    experiment = reported.run.info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{reported.run.info.run_id}'")
    trials = {int(child.data.tags["slot"]): child.data for child in children}
    assert data["finished"] == len(trials) == len(data["trials"])
    for trial in data["trials"]:
        history = client.get_metric_history(trial["run_id"], f"val_{data['metric']}")
        assert trial["curve"] == pytest.approx([m.value for m in sorted(history, key=lambda m: m.step)])
        assert trial["outcome"] == trials[trial["slot"]].tags["status"]
        assert trial["optimizer"] == trials[trial["slot"]].params["optimizer"]
    for cell in data["heat_map"]:
        here = [
            run.metrics["value"]
            for run in trials.values()
            if (run.params["optimizer"], int(run.params["freeze_depth"])) == (cell["optimizer"], cell["freeze_depth"])
        ]
        assert cell["trials"] == len(here)
        assert cell["best"] == (pytest.approx(max(here)) if here else None)
    assert data["cost"]["epoch_equivalents"] == pytest.approx(
        sum(run.metrics["epoch_equivalents"] for run in trials.values())
    )
    assert data["cost"]["epochs"] == sum(int(run.metrics["epochs"]) for run in trials.values())
    assert data["cost"]["trial_seconds"] == pytest.approx(sum(run.metrics["seconds"] for run in trials.values()))
    winner, rival = trials[data["winner"]["slot"]], trials[data["rival"]["slot"]]
    assert rival.params["freeze_depth"] != winner.params["freeze_depth"]
    assert data["rival"]["difference"] == pytest.approx(rival.metrics["value"] - winner.metrics["value"])
    assert data["rival"]["value"] == max(
        run.metrics["value"]
        for run in trials.values()
        if run.params["freeze_depth"] != winner.params["freeze_depth"] and run.tags["status"] != "diverged"
    )
    confusion = json.loads((reported.artifacts / "test" / "confusion.json").read_text(encoding="utf-8"))
    assert data["confusion"]["counts"] == [row[1:] for row in confusion["data"]]
    assert sum(map(sum, data["confusion"]["counts"])) == data["winner"]["tested"]
    counts = np.array([row[1:] for row in confusion["data"]])
    assert len(data["classes"]) == len(counts) > 1
    for place, scores in enumerate(data["classes"]):
        hits, images, called = counts[place, place], counts[place].sum(), counts[:, place].sum()
        interval = binomtest(int(hits), int(images)).proportion_ci(0.95, "exact")
        assert scores["name"] == confusion["data"][place][0] and scores["images"] == images > 0
        assert scores["recall"] == pytest.approx(hits / images)
        assert (scores["recall_low"], scores["recall_high"]) == pytest.approx((interval.low, interval.high))
        assert scores["precision"] == pytest.approx(hits / called if called else 0.0)
        assert scores["f1"] == pytest.approx(2 * hits / (images + called))
    _winner_rival_and_scorecard(data, trials, reported.artifacts)
    _verdict_wrong_images_and_needs(data, reported.artifacts)
    seconds = {name: [m.value for m in client.get_metric_history(reported.run.info.run_id, f"seconds_{name}")]
               for name in (phase["name"] for phase in data["cost"]["phases"])}  # fmt: skip
    assert [phase["calls"] for phase in data["cost"]["phases"]] == [len(values) for values in seconds.values()]
    assert data["cost"]["seconds"] == pytest.approx(sum(map(sum, seconds.values())))
    kept = json.loads((reported.artifacts / ARTIFACT).read_text(encoding="utf-8"))
    assert {k: v for k, v in kept.items() if k != "pictures"} == {
        k: v for k, v in data["findings"].items() if not k.endswith("_shown")
    }
    assert data["prior"] == reported.run.data.tags["prior"]
    assert data["reproduction"]["commit"] == reported.run.data.tags["commit"]
    assert data["reproduction"]["digests"]["data"] == reported.run.data.tags["data_digest"]


def _verdict_wrong_images_and_needs(data: dict[str, Any], artifacts: Path) -> None:
    counts = np.array(data["confusion"]["counts"])
    verdict, wrong = data["verdict"], data["wrong"]
    interval = binomtest(int(counts.trace()), int(counts.sum())).proportion_ci(0.95, "exact")
    assert (verdict["right"], verdict["images"]) == (counts.trace(), counts.sum())
    assert (verdict["low"], verdict["high"]) == pytest.approx((interval.low, interval.high))
    table = json.loads((artifacts / PREDICTED).read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == counts.sum() == wrong["judged"]
    by_path = {row["path"]: row for row in rows if row["label"] != row["predicted"]}
    assert wrong["found"] == counts.sum() - counts.trace() == len(by_path) == len(wrong["images"])
    for one in wrong["images"]:
        row = by_path[one["path"]]
        assert (one["true"], one["predicted"]) == (row["label"], row["predicted"])
        assert one["probability"] == pytest.approx(row[f"p({one['predicted']})"], abs=1e-6)
        assert one["true_probability"] == pytest.approx(row[f"p({one['true']})"], abs=1e-6)
    for need in data["needs"]:
        place = data["confusion"]["classes"].index(need["name"])
        assert (need["right"], need["images"]) == (counts[place, place], counts[place].sum())
    training = dict(zip(data["findings"]["classes"], data["findings"]["training"], strict=True))
    assert sum(training.values()) == data["findings"]["training_images"]
    assert all(need["training"] == training[need["name"]] for need in data["needs"])


def _winner_rival_and_scorecard(data: dict[str, Any], trials: dict[int, Any], artifacts: Path) -> None:
    winner, rival, found = trials[data["winner"]["slot"]], data["rival"], data["findings"]
    assert data["winner"]["epochs"] == winner.metrics["epochs"]
    assert data["winner"]["trained"] == found["training_images"] + found["judged"] == 30  # it was refitted on both
    assert data["winner"]["test_reads"] == 1
    n = found["judged"] + 4
    shares = [(value * found["judged"] + 2) / n for value in (winner.metrics["value"], rival["value"])]
    assert rival["noise"] == pytest.approx(2 * sum(share * (1 - share) / n for share in shares) ** 0.5) != 0
    assert rival["freeze_depth"] == int(trials[rival["slot"]].params["freeze_depth"])
    table = json.loads((artifacts / "scorecard.json").read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["scorer"], row["depths"], row["order"]) for row in rows] == [
        (row["scorer"], row["depths"], " ".join(map(str, row["order"]))) for row in data["scorecard"]
    ]
    for row, shown in zip(rows, data["scorecard"], strict=True):
        for column, name in (
            ("chosen_depth", "chosen"),
            ("kendall_tau", "tau"),
            ("regret", "regret"),
            ("seconds", "seconds"),
        ):
            assert row[column] == (None if shown[name] is None else pytest.approx(shown[name], abs=0.01))
    measures = json.loads((artifacts / MAP_MEASURES).read_text(encoding="utf-8"))
    rows = [dict(zip(measures["columns"], row, strict=True)) for row in measures["data"]]
    for row, shown in zip(rows, found["measures"], strict=True):
        assert row == {
            name: pytest.approx(value) if isinstance(value, float) else value for name, value in shown.items()
        }
    evidence = json.loads((artifacts / "evidence.json").read_text(encoding="utf-8"))
    assert data["block_count"] == len(evidence["blocks"])
    assert data["depth_numbers"] == list(range(evidence["depths"][0], evidence["depths"][1] + 1))


def test_no_number_stands_outside(reported: SimpleNamespace) -> None:
    reader = PageReader(reported.html)
    assert [(section, text) for section, text in reader.bare if NUMBER.search(text)] == []
    assert reader.open == [] and reader.handlers == []


def test_what_is_examined_is_the_winning_trial_again_and_never_a_test_image(reported: SimpleNamespace) -> None:
    found = reported.data["findings"]
    assert found["score"] == pytest.approx(found["trial_score"], abs=1e-6)  # the same network, trained again
    table = json.loads((reported.artifacts / PREDICTIONS).read_text(encoding="utf-8"))
    assert len(table["data"]) == found["judged"] == sum(map(sum, found["confusion"])) == 6
    assert reported.study.test_reads == 1
    classes = [column[2:-1] for column in table["columns"][2:]]
    hits = [classes[max(range(3), key=lambda k: row[2:][k])] == row[1] for row in table["data"]]
    assert sum(hits) / len(hits) == pytest.approx(found["accuracy"])
    assert reported.run.data.metrics["out_of_sample_accuracy"] == found["accuracy"]


def test_wrong_test_images_are_those_of_the_one_reading(reported: SimpleNamespace) -> None:
    """To look at them changes neither how often the test images were read nor a score."""
    assert reported.study.test_reads == 1
    assert reported.data["wrong"]["version"] == reported.study.winner.version
    assert reported.data["notes"] == []


def test_maps_of_the_winner_are_pictures_block_by_block(reported: SimpleNamespace) -> None:
    winner = reported.study.winner
    trial = next(trial.run_id for trial in reported.study.trials if trial.slot == winner.slot)
    mapped = [one["block"] for one in reported.data["findings"]["measures"]]
    steps = {0, *(list(reported.study.evidence.blocks).index(block) + 1 for block in mapped)}
    for run_id in (reported.study.run_id, trial):
        files = [file.path for file in reported.client.list_artifacts(run_id, "images") if file.path.endswith(".png")]
        assert {int(f.split("+step+")[1].split("+")[0]) for f in files if f.startswith("images/maps~winner+")} == steps


def test_a_second_report_trains_nothing(reported: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.report.writing._restored", lambda *_: pytest.fail("the findings are there"))
    assert main([f"study={reported.study.name}", f"root={reported.root}"]) == 0


def test_the_command_asks_for_the_same_study(reported: SimpleNamespace, finished: SimpleNamespace) -> None:
    import shlex

    from search.settings.compose import compose_settings

    words = shlex.split(reported.data["reproduction"]["command"])
    assert words[:3] == ["python", "-m", "search"]
    assert compose_settings(words[3:]) == compose_settings([*finished.arguments, "data.fit=stretch"])  # as was chosen


def test_a_study_is_plain_values(reported: SimpleNamespace) -> None:
    from dataclasses import FrozenInstanceError

    import search

    study = search.load_study(reported.study.name, reported.root)
    frame = study.frame()
    assert list(frame.index) == [0, 1, 2, 3] and frame.loc[0, "optimizer"] == "adam"
    assert study.best is not None and study.winner is not None
    assert study.best.slot == study.winner.slot and study.best.value == frame["value"][study.winner.slot]
    with pytest.raises(FrozenInstanceError):
        study.trials[0].value = 1.0  # type: ignore[misc]
    assert study.evidence is not None
    html = study._repr_html_() + study.evidence._repr_html_()
    assert html.count("<img") == 2 and f"Winner: trial {study.winner.slot}" in html


@pytest.fixture(scope="module")
def unfinished(tracking_root: Path) -> str:
    """A study that stopped after one trial of three."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = "stopped early"
    identity = {"search.metric": "macro_f1", "model.name": "lenet5", "space.optimizers": ["sgd"]}
    study, _ = load_or_create(tracking_root / "studies" / f"{name}.journal", name, identity, fresh=False)
    tracker = Tracker(tracking_root, "thawline")
    parent = tracker.start_parent(name, {"search.trials": 3}, {"study": name})
    study.set_user_attr("parent", parent)
    trial = study.ask()
    trial.suggest_categorical("optimizer", ["sgd"])
    trial.suggest_float("lr_factor", 0.1, 10, log=True)
    trial.suggest_int("freeze_depth", 0, 2)
    trial.report(0.4, 1)
    run = tracker.start_trial(parent, "t00", trial.params, {"slot": 0})
    told = {"value": 0.4, "loss": 1.5, "epochs": 1, "seconds": 1.0, "epoch_equivalents": 1.0}
    tracker.log(run, told)
    tracker.finish(run, "FINISHED")
    for key, value in {**told, "slot": 0, "outcome": "pruned", "reason": "slow", "run_id": run}.items():
        trial.set_user_attr(key, value)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    tracker.finish(parent, "KILLED")
    optuna.logging.set_verbosity(level)
    return name


def test_a_study_without_winner_is_reported_as_it_is(
    unfinished: str, tracking_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "page.html"
    assert main([f"study={unfinished}", f"root={tracking_root}", f"to={to}"]) == 0
    assert capsys.readouterr().out == f"Report: {to}\n"
    text = re.sub(r"<[^>]*>", "", to.read_text(encoding="utf-8"))
    assert "No winner yet" in text and "The search was interrupted: 1 of 3 trials finished." in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("study=nowhere",), "there is no study 'nowhere' in ROOT: studies: "),
        (("study=../x",), "there is no study '../x' in ROOT"),
        ((), "study must be named, got nothing"),
        (("study=",), "study must not be empty"),
        (("study=tiny", "study=tiny"), "study is given twice"),
        (("name=tiny",), "unknown argument 'name=tiny'; accepted: study=NAME root=FOLDER to=FILE"),
        (("study=tiny", "to=TMP"), "to must name a file in a folder that exists, got TMP: it is a folder"),
        (("study=tiny", "to=TMP/no/page.html"), "got TMP/no/page.html: there is no folder TMP/no"),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(
    arguments: tuple[str, ...],
    line: str,
    finished: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted((finished.root / "studies").iterdir())
    given = [a.replace("TMP", str(tmp_path)) for a in arguments]
    assert main([f"root={finished.root}", *given]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert line.replace("ROOT", str(finished.root)).replace("TMP", str(tmp_path)) in said.err
    assert list(tmp_path.iterdir()) == [] and sorted((finished.root / "studies").iterdir()) == before


def test_no_store_is_made_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"root={tmp_path}", "study=tiny"]) == 2
    assert f"no studies yet; run {typed('search', root=tmp_path)} first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
