"""Whole searches on real images, each in a process of its own: what they leave must agree, whatever interrupts them."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real images are not beside the project"),
    pytest.mark.timeout(600),
]
NEU = (
    "data=manifest",
    "data.outside=allow",
    "data.test=rest",
    "data.max_train_per_class=12",
    "data.size=[48,48]",
    "trainer.epochs=3",
    "search.startup_trials=3",
    "search.stop=never",  # how good the best is depends on the processor
    "executor.threads=1",
)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "search", *arguments]


def _study(root: Path, name: str):  # type: ignore[no-untyped-def]
    import optuna

    from search.study.storage import open_storage

    return optuna.load_study(study_name=name, storage=open_storage(root / "studies" / f"{name}.journal"))


def _client(root: Path):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    from search.tracking.tracker import tracking_uri

    return MlflowClient(tracking_uri(root), registry_uri=tracking_uri(root))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("neu") / "mlruns"


@pytest.fixture(scope="module")
def neu(root: Path) -> tuple[str, ...]:
    """Arguments of a search of 40 images a class, of which 28 are tested."""
    with (DATA / "neu" / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    file, taken = root.parent / "forty.csv", Counter[str]()
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "label", "month"))
        for row in rows:
            taken[row["label"]] += 1
            if taken[row["label"]] <= 40:
                writer.writerow((DATA / "neu" / row["path"], row["label"], row["month"]))
    return (*NEU, f"data.path={file}", f"tracking.root={root}")


@pytest.fixture(scope="module")
def searched(neu: tuple[str, ...]) -> str:
    """Output of an undisturbed search of six trials."""
    done = subprocess.run(
        _command(*neu, "search.trials=6", "search.study=whole"),
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_table_runs_model_and_study_agree(searched: str, neu: tuple[str, ...], root: Path) -> None:
    from lightning_modules.networks.model_file import load_model
    from search.settings.compose import compose_settings
    from search.study.record import finished_trials
    from search.tracking.models import resolve_model
    from search.trial.preparation import load, split

    study, client = _study(root, "whole"), _client(root)
    trials, parent = finished_trials(study), study.user_attrs["parent"]
    assert [t.user_attrs["slot"] for t in trials] == list(range(6))
    for trial in trials:
        run = client.get_run(trial.user_attrs["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.data.tags["status"] == trial.user_attrs["outcome"]
        assert run.data.params["optimizer"] == trial.params["optimizer"]
        assert float(run.data.params["lr_factor"]) == trial.params["lr_factor"]
        assert int(run.data.params["freeze_depth"]) == trial.params["freeze_depth"]
        for name in ("value", "loss", "epochs", "seconds", "epoch_equivalents"):
            assert run.data.metrics[name] == pytest.approx(trial.user_attrs[name], rel=1e-12)
        history = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val_macro_f1")}
        assert history == pytest.approx(trial.intermediate_values)
        assert history[max(history)] == pytest.approx(trial.user_attrs["value"])
    winner = study.user_attrs["winner"]
    parent_run = client.get_run(parent)
    assert parent_run.info.status == "FINISHED"
    for name, value in winner["test"].items():
        assert parent_run.data.metrics[f"test_{name}"] == pytest.approx(value)
    for name, (low, high) in winner["intervals"].items():
        assert parent_run.data.metrics[f"test_{name}_low"] == pytest.approx(low)
        assert parent_run.data.metrics[f"test_{name}_high"] == pytest.approx(high)
    told = re.search(r"^Test scores on \d+ images, read once: accuracy ([\d.]+), macro F1 ([\d.]+)\.$", searched, re.M)
    assert told is not None, searched
    scores = [winner["test"][name] for name in ("accuracy", "macro_f1")]
    assert [float(g) for g in told.groups()] == pytest.approx(scores, abs=5e-5)
    assert study.user_attrs["test_reads"] == 1
    version = client.get_model_version_by_alias("thawline", "challenger")
    assert str(version.version) == winner["version"]
    assert version.run_id == parent
    from rich.console import Console

    settings = compose_settings([*neu])
    images = load(settings, Console(quiet=True))
    rows = split(settings, images.index).test
    model = resolve_model("challenger", root)
    hits = 0
    for row in rows:
        record = images.index.records[int(row)]
        hits += model.card.classes[int(model.probabilities(model.read(record.path)).argmax())] == record.label
    assert hits / len(rows) == pytest.approx(winner["test"]["accuracy"])
    folder = next((root / "artifacts").rglob("model.safetensors")).parent
    assert load_model(folder).card.classes == images.index.classes


def test_the_same_command_again_reads_no_test_image(searched: str, neu: tuple[str, ...], root: Path) -> None:
    before = _study(root, "whole").user_attrs["winner"]
    done = subprocess.run(_command(*neu, "search.trials=6", "search.study=whole"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    study = _study(root, "whole")
    assert "complete with 6 finished trials" in done.stdout
    assert study.user_attrs["test_reads"] == 1
    assert study.user_attrs["winner"] == before


@pytest.mark.long  # the sample of faults kills searches too
def test_a_killed_study_ends_as_if_nothing_had_happened(searched: str, neu: tuple[str, ...], root: Path) -> None:
    """Other signals: tests/faults and test_two_workers.py.

    Two workers finish in another order each time. The order decides how far the halving rule lets a trial go and what
    the sampler has seen when it draws the fifth trial and later ones. The first four are drawn at random, each from
    the seed of its slot: at most two of the three trials before them can be known by then. As far as both studies
    trained these, they are the same.
    """
    from search.study.record import finished_trials

    name = "killed"
    arguments = (*neu, "search.trials=6", f"search.study={name}", "tracking.report=false")
    process = subprocess.Popen(_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ended = 0
    while ended < 2:
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        ended += line.startswith("trial")
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(_command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continued with" in done.stdout
    disturbed, whole = finished_trials(_study(root, name)), finished_trials(_study(root, "whole"))
    assert len(disturbed) == 6
    drawn_at_random = 4
    assert [t.params for t in disturbed[:drawn_at_random]] == [t.params for t in whole[:drawn_at_random]]
    for one, other in zip(disturbed[:drawn_at_random], whole[:drawn_at_random], strict=True):
        both = sorted(one.intermediate_values.keys() & other.intermediate_values.keys())
        assert len(both) >= 2  # the first rung
        assert [one.intermediate_values[e] for e in both] == pytest.approx([other.intermediate_values[e] for e in both])
    assert _running(root) == []


def _running(root: Path) -> list[str]:
    with sqlite3.connect(root / "mlflow.db") as database:
        return [row[0] for row in database.execute("select name from runs where status = 'RUNNING'")]


def test_the_served_model_takes_files_and_bytes(searched: str, root: Path, tmp_path: Path) -> None:
    from search.tracking.models import resolve_model
    from search.tracking.tracker import tracking_uri

    files = [DATA / "neu" / kind / f"{kind}_00{n}.jpg" for kind in ("scratches", "patches") for n in (1, 2)]
    assert all(file.is_file() for file in files)
    model = resolve_model("challenger", root)
    expected = [model.card.classes[int(model.probabilities(model.read(file)).argmax())] for file in files]
    (tmp_path / "files.csv").write_text("path\n" + "\n".join(map(str, files)) + "\n")
    content = [[base64.b64encode(file.read_bytes()).decode()] for file in files]
    (tmp_path / "bytes.json").write_text(json.dumps({"dataframe_split": {"columns": ["image"], "data": content}}))
    # Other tests of this process may have set a registry.
    store = dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"), tracking_uri(root))
    for request, kind in (("files.csv", "csv"), ("bytes.json", "json")):
        answer = tmp_path / f"{kind}.out"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mlflow", "models", "predict", "-m", "models:/thawline@challenger"),
                *("-i", str(tmp_path / request), "-t", kind, "-o", str(answer), "--env-manager", "local"),
            ],
            env={**os.environ, **store, "MLFLOW_DISABLE_TELEMETRY": "true"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert [row["class"] for row in json.loads(answer.read_text())["predictions"]] == expected


def test_groups_of_magnetic_tile_never_straddle(tmp_path: Path) -> None:
    from search.settings.compose import compose_settings
    from search.trial.preparation import load, split

    arguments = (
        "data=manifest",
        f"data.path={DATA / 'magnetic_tile' / 'manifest.csv'}",
        "data.fit=pad",
        "data.size=[32,32]",
        "data.max_train_per_class=20",
        "trainer.epochs=1",
        "search.trials=1",
        "executor.threads=1",
        "search.evidence=false",
        "tracking.report=false",
        f"tracking.root={tmp_path / 'mlruns'}",
    )
    done = subprocess.run(_command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Test scores on" in done.stdout
    from rich.console import Console

    settings = compose_settings(arguments)
    index = load(settings, Console(quiet=True)).index
    splits = split(settings, index)
    parts = (splits.folds[0].train, splits.folds[0].val, splits.test)
    groups = [{index.records[int(row)].group for row in part} for part in parts]
    assert all(groups)
    assert not groups[0] & groups[1]
    assert not groups[2] & (groups[0] | groups[1])
