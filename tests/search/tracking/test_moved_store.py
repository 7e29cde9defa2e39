"""A store that was moved or copied: every command works in it, and what is at the old place stays as it is."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.errors import InputError
from search import load_study
from search.errors import StoreError
from search.tracking.models import resolve_model
from search.tracking.store import adopt
from tests.old_store.make import RETRAIN, draw
from tests.search.test_old_store import unpacked
from tests.store_copies import contents, copy_store


def locations(root: Path) -> set[str]:
    """Whatever the database says of where something lies, cut behind the artifacts folder."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        found = []
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            found += [row[0] for row in database.execute(f"SELECT {column} FROM {table}")]  # noqa: S608
    return {location.split("/artifacts")[0] for location in found if location}


@pytest.fixture
def copied(finished: SimpleNamespace, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A copy of a store whose original must not change."""
    with closing(sqlite3.connect(finished.root / "mlflow.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = contents(finished.root)
    root = tmp_path / "사본, a copy" / "mlruns"
    copy_store(finished.root, root)
    arguments = (*finished.arguments, f"tracking.root={root}")
    yield SimpleNamespace(root=root, arguments=arguments, original=finished.root)
    after = contents(finished.root)  # but for what SQLite keeps beside a database that this process has open
    assert {name: after[name] for name in after if name in before or not name.startswith("mlflow.db-")} == before


@pytest.mark.slow  # three searches
def test_a_copied_store_writes_into_itself_and_a_moved_one_needs_no_old_place(
    copied: SimpleNamespace, stripes: Path, run_search_warm: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from search.predict.__main__ import main as predict
    from search.report.__main__ import main as report

    outcome = run_search_warm(*copied.arguments, "search.trials=5")
    assert outcome.code == 0, outcome.err
    assert "continued with 4 of 5 trials finished" in outcome.out
    assert locations(copied.root) == {copied.root.as_uri()}
    version = str(max(int(v) for v in _versions(copied.root)))
    resolve_model(version, copied.root)

    moved = copied.root.parent.parent / "moved"
    copied.root.rename(moved)
    words = [f"images={stripes}", f"tracking.root={moved}", f"to={moved.parent / 'table.csv'}"]
    assert predict([*words, f"model={version}"]) == 0, capsys.readouterr().err
    assert report(["study=tiny", f"root={moved}"]) == 0, capsys.readouterr().err
    run_id = load_study("tiny", moved).run_id or ""
    assert (moved / "artifacts" / run_id / "artifacts" / "report" / "report.html").is_file()
    outcome = run_search_warm(*copied.arguments, "search.study=another", "search.trials=1", f"tracking.root={moved}")
    assert outcome.code == 0, outcome.err
    assert locations(moved) == {moved.as_uri()}
    assert not copied.root.exists()
    assert _served(moved, str(max(int(v) for v in _versions(moved)))) == 1


def test_one_process_writes_into_the_store_it_opened_last(copied: SimpleNamespace) -> None:
    """MLflow remembers by the run alone where its artifacts go, and a copy has the same runs."""
    from mlflow import MlflowClient

    from search.tracking.tracker import Tracker, tracking_uri

    run = load_study("tiny", copied.original).run_id or ""
    client = MlflowClient(tracking_uri(copied.original), registry_uri=tracking_uri(copied.original))
    assert client.list_artifacts(run)  # as of now MLflow knows where they lie
    Tracker(copied.root, "thawline").log_text(run, "a", "text.txt")
    assert (copied.root / "artifacts" / run / "artifacts" / "text.txt").is_file()


def _versions(root: Path) -> list[str]:
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        return [str(row[0]) for row in database.execute("SELECT version FROM model_versions WHERE name = 'thawline'")]


def _served(root: Path, version: str) -> int:
    """Loads a version as MLflow's own server does; returns how many rows it answers."""
    import mlflow
    import pandas as pd

    from search.tracking.tracker import tracking_uri

    # Not put back: MLflow's own default would be a file in the working folder.
    mlflow.set_tracking_uri(tracking_uri(root))
    mlflow.set_registry_uri(tracking_uri(root))
    model = mlflow.pyfunc.load_model(f"models:/thawline/{version}")
    image = next((root.parents[0]).rglob("*.png"))
    return len(model.predict(pd.DataFrame({"path": [str(image)]})))


def test_experiments_of_others_stay_where_they_are(copied: SimpleNamespace, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from search.tracking.tracker import tracking_uri

    client = MlflowClient(tracking_uri(copied.root), registry_uri=tracking_uri(copied.root))
    run = client.create_run(client.create_experiment("mine", (tmp_path / "own" / "artifacts").as_uri()))
    client.log_text(run.info.run_id, "a", "text.txt")
    os.close(adopt(copied.root))
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["text.txt"]
    assert copied.root.as_uri() in locations(copied.root)


def test_the_models_of_a_copy_are_read_from_the_copy(copied: SimpleNamespace) -> None:
    shutil.rmtree(copied.root / "artifacts" / "models")
    with pytest.raises(InputError, match=r"its files are gone: none in .*사본, a copy"):
        resolve_model("challenger", copied.root)


def test_the_ui_shows_the_files_of_the_copy(copied: SimpleNamespace) -> None:
    from search.ui import command

    assert f"sqlite:///{copied.root / 'mlflow.db'}" in command([f"tracking.root={copied.root}"])
    assert locations(copied.root) == {copied.root.as_uri()}


def test_a_store_of_old_code_is_rebased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from search.explain.__main__ import main as explain
    from search.retrain.__main__ import main as retrain

    old = unpacked(tmp_path / "there")
    copy_store(old, tmp_path / "here")
    before = contents(old)
    root = tmp_path / "here" / "mlruns"
    words = [*RETRAIN[1:], f"tracking.root={root}"]
    assert retrain(["rollback", "reason=as a test", *words]) == 0, capsys.readouterr().err
    assert locations(root) == {root.as_uri()}
    assert contents(old) == before
    shutil.rmtree(old)
    images = tmp_path / "here" / "images" / "2020-01" / "left" / "0[0-3].png"
    given = [f"images={images}", f"root={root}", "model=models:/sheets@champion", "figures=0"]
    assert explain([*given, f"out={tmp_path / 'explained'}"]) == 0, capsys.readouterr().err


@pytest.mark.slow  # trains a month
def test_a_month_is_done_in_a_copy_of_an_old_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.retrain.__main__ import main as retrain
    from search.retrain.ledger import Ledger

    old = unpacked(tmp_path / "there")
    copy_store(old, tmp_path / "here")
    before = contents(old / "mlruns")
    monkeypatch.chdir(tmp_path / "here")
    draw(Path("images"), "2020-03")
    assert retrain(list(RETRAIN[1:])) == 0, capsys.readouterr().err
    assert [row.month for row in Ledger(Path("mlruns"), "sheets").months()] == ["2020-01", "2020-02", "2020-03"]
    assert contents(old / "mlruns") == before
    assert locations(Path("mlruns").resolve()) == {(tmp_path / "here" / "mlruns").as_uri()}


def test_a_store_in_use_is_not_opened_under_another_path(copied: SimpleNamespace, tmp_path: Path) -> None:
    """What two mounts of one folder are to two containers; here the second path is written into the database."""
    with closing(sqlite3.connect(copied.root / "mlflow.db")) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = 'file:///elsewhere/mlruns/artifacts' || "
            "CASE experiment_id WHEN 0 THEN '/0' ELSE '' END"
        )
    place = os.open(copied.root, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_SH)
        with pytest.raises(StoreError, match=r"is in use as /elsewhere/mlruns; .* under that path"):
            adopt(copied.root)
    finally:
        os.close(place)
    os.close(adopt(copied.root))
    assert "file:///elsewhere/mlruns" not in locations(copied.root)


def test_an_experiment_kept_elsewhere_stays_there(copied: SimpleNamespace) -> None:
    from mlflow import MlflowClient

    from search.tracking.tracker import tracking_uri

    client = MlflowClient(tracking_uri(copied.root))
    client.create_experiment("of the user", "file:///data/experiments/7")
    os.close(adopt(copied.root))
    assert locations(copied.root) == {copied.root.as_uri(), "file:///data/experiments/7"}
