"""A store that version 0.1 left is read and gone on with; `tests/old_store/README.md` says what is in it."""

from __future__ import annotations

import csv
import re
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.old_store.make import CODE, PLACE, RETRAIN, SEARCH, draw

ARCHIVE = Path(__file__).parents[1] / "old_store" / "0.1.tar.xz"


def unpacked(place: Path) -> Path:
    """The archive's folders below `place`, the databases made again."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(place, filter="data")
    for file in [path for path in (place / "mlruns").rglob("*") if path.is_file()]:
        content = file.read_bytes()
        if PLACE.encode() in content or CODE.encode() in content:
            content = content.replace(PLACE.encode(), str(place).encode()).replace(CODE.encode(), b"code")
            file.write_bytes(content)
        if file.name.endswith(".db.sql"):
            with closing(sqlite3.connect(file.with_suffix(""))) as database, database:
                database.executescript(content.decode())
            file.unlink()
    return place


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for tests that change nothing in it."""
    return unpacked(tmp_path_factory.mktemp("old"))


@pytest.fixture
def store(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, where the commands run."""
    monkeypatch.chdir(read_only)
    return read_only


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that may be changed."""
    monkeypatch.chdir(tmp_path)
    return unpacked(tmp_path)


def test_the_study_is_read(store: Path) -> None:
    from search import load_study

    study = load_study("old", Path("mlruns"))
    assert [trial.slot for trial in study.trials] == [0, 1, 2, 3]
    assert study.winner is not None and study.best is not None and study.best.slot == study.winner.slot
    assert study.test_reads == 1
    assert set(study.frame()["optimizer"]) == {"adam"}


def test_no_month_is_due_and_the_history_is_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from search.retrain.__main__ import main
    from search.retrain.ledger import Ledger

    assert main(list(RETRAIN[1:])) == 0
    said = capsys.readouterr().out
    assert "Nothing to do: all 2 months are in the ledger, the last: 2020-02 was done on " in said
    assert main(["history", *RETRAIN[1:]]) == 0
    said = capsys.readouterr().out
    ledger = Ledger(Path("mlruns"), "sheets")
    assert [row.month for row in ledger.months()] == ["2020-01", "2020-02"]
    assert [one.kind for one in ledger.promotions()] == ["bootstrap", "promotion"]
    assert "bootstrap" in said and "promotion 2020-02" in said


def test_the_champion_predicts(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from search.predict.__main__ import main

    words = ["images=images/2020-02", "tracking.root=mlruns", "model=models:/sheets@champion"]
    assert main([*words, f"to={tmp_path / 'predictions.csv'}"]) == 0, capsys.readouterr().err
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    # It was promoted for telling them apart, and its weights are in the archive.
    assert sum(row["class"] == Path(row["path"]).parent.name for row in rows) > 20


def test_the_champion_is_explained(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from search.explain.__main__ import main

    words = ["images=images/2020-01/left/0[0-3].png", "root=mlruns", "model=models:/sheets@champion", "figures=0"]
    assert main([*words, f"out={tmp_path / 'explained'}"]) == 0, capsys.readouterr().err
    assert (tmp_path / "explained" / "predictions.csv").read_text(encoding="utf-8").count("\n") == 5


@pytest.mark.slow
def test_the_study_is_reported_and_begun_anew(
    own_store: Path, run_search_warm: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from search import load_study
    from search.report.__main__ import main

    assert main(["study=old", "root=mlruns", "to=before.html"]) == 0, capsys.readouterr().err
    page = " ".join(re.sub(r"<[^>]*>", "", Path("before.html").read_text(encoding="utf-8")).split())
    assert "lenet5" in page and "adam at learning rate 0.001" in page and "No winner yet" not in page
    before = load_study("old", Path("mlruns"))
    then = ("trainer.schedule=constant", "search.evidence=true")  # the defaults when the store was made
    outcome = run_search_warm(*SEARCH[1:], *then, "search.trials=5", cwd=own_store)
    assert outcome.code == 2
    assert "study 'old' was made with trials judged otherwise (by their best epoch, as earlier code did)" in outcome.err
    assert load_study("old", Path("mlruns")).trials == before.trials
    outcome = run_search_warm(*SEARCH[1:], *then, "search.trials=4", "search.fresh=true", cwd=own_store)
    assert outcome.code == 0, outcome.err
    assert [trial.slot for trial in load_study("old", Path("mlruns")).trials] == [0, 1, 2, 3]


@pytest.mark.slow
def test_the_next_month_is_done_by_the_old_ledger(own_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from search.retrain.__main__ import main
    from search.retrain.ledger import Ledger

    draw(own_store / "images", "2020-03")
    assert main(list(RETRAIN[1:])) == 0, capsys.readouterr().err
    assert "does not name the images that it was trained on" in capsys.readouterr().out
    assert [row.month for row in Ledger(Path("mlruns"), "sheets").months()] == ["2020-01", "2020-02", "2020-03"]
    assert main(["rollback", "reason=as a test", *RETRAIN[1:]]) == 0, capsys.readouterr().err
