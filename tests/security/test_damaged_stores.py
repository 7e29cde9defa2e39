"""A study whose files were damaged, locked, moved or made read-only: one line with the way out, or repaired."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import search.tracking.store
from search.errors import StoreError
from search.study.ownership import owned
from search.study.storage import repair_journal
from search.tracking.tracker import Tracker
from tests.privileges import without_power
from tests.security.malicious_files import Payload
from tests.store_copies import copy_store


@pytest.fixture
def study(searched: Any, tmp_path: Path) -> tuple[Path, list[str]]:
    """A copy of the finished study's store, and the arguments that continue it there."""
    root = tmp_path / "mlruns"
    copy_store(searched.root, root)
    return root, [*searched.arguments[:-1], f"tracking.root={root}"]


def refused(outcome: Any, *words: str) -> None:
    assert outcome.code == 2, outcome
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


def _half(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"0a1b')


def _zeros(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(bytes(3000))


def _no_json(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(b'{"op_code":8,"worker_\n')


@pytest.mark.parametrize("damage", [_half, _zeros, _no_json], ids=["half a line", "zeros", "a cut line"])
def test_what_a_killed_driver_left_is_repaired(damage: Callable[[Path], None], study: tuple[Path, list[str]]) -> None:
    journal = study[0] / "studies" / "tiny.journal"
    whole = journal.read_bytes()
    damage(journal)
    lock = journal.with_name("tiny.journal.lock")
    lock.symlink_to(journal)  # Optuna's: it would wait 30 s for whoever made it
    assert repair_journal(journal) > 0
    assert journal.read_bytes() == whole
    assert not lock.is_symlink()
    assert repair_journal(journal) == 0


def test_the_study_goes_on_after_half_a_line(study: tuple[Path, list[str]], command: Any) -> None:
    root, arguments = study
    _half(root / "studies" / "tiny.journal")
    outcome = command("search", arguments)
    assert outcome.code == 0, outcome
    assert "complete with 2 finished trials" in outcome.out
    lines = (root / "studies" / "tiny.journal").read_text().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_a_journal_damaged_in_the_middle(study: tuple[Path, list[str]], command: Any) -> None:
    root, arguments = study
    journal = root / "studies" / "tiny.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], b"\x00\xff\x13garbage\n", *lines[5:]]))
    before = journal.read_bytes()
    refused(command("search", arguments), "tiny.journal is damaged (line 6)", "head -n 5", "search.fresh=true")
    assert journal.read_bytes() == before
    journal.write_bytes(b"".join(lines[:5]))  # the way out
    assert repair_journal(journal) == 0


def test_a_journal_that_is_a_pickle(study: tuple[Path, list[str]], command: Any, tmp_path: Path) -> None:
    root, arguments = study
    (root / "studies" / "tiny.journal").write_bytes(pickle.dumps(Payload(tmp_path / "executed")) * 2 + b"\n{}\n")
    refused(command("search", arguments), "tiny.journal is damaged (line 1)", "search.fresh=true")
    assert not (tmp_path / "executed").exists()


def test_a_waiting_trial_that_is_a_pickle(tmp_path: Path) -> None:
    import torch

    from search.trial.checkpoint import load_checkpoint

    file = tmp_path / "slot-0.pt"
    for write in (
        lambda: file.write_bytes(pickle.dumps(Payload(tmp_path / "executed"))),
        lambda: torch.save({"curve": [Payload(tmp_path / "executed")]}, file),
        lambda: torch.save(torch.zeros(2), file),
        lambda: torch.save({"curve": [{"nonsense": 1}]}, file),
        lambda: file.write_bytes(bytes(range(256))),
        lambda: file.write_bytes(b""),
    ):
        write()
        assert load_checkpoint(file, of="a trial") is None  # the trial is trained again
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"no database" * 500, "file is not a database"),
        (lambda data: data[: len(data) // 2], "mlflow.db is damaged"),
        (lambda data: data[:8192] + bytes(len(data) - 8192), "mlflow.db is damaged"),
    ],
    ids=["text", "half", "zeros"],
)
def test_a_damaged_database(
    damage: Callable[[bytes], bytes], words: str, study: tuple[Path, list[str]], command: Any
) -> None:
    root, arguments = study
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        (root / f"mlflow.db{suffix}").unlink(missing_ok=True)
    (root / "mlflow.db").write_bytes(damage((root / "mlflow.db").read_bytes()))
    refused(command("search", arguments), words, "put back a copy of it, or move it away", "search.fresh=true")


def test_a_database_that_is_gone(study: tuple[Path, list[str]], command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, arguments = study
    # Making MLflow's tables takes seconds; that this run is not among them is all that counts.
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET run_uuid = 'x' || run_uuid")
    refused(command("search", arguments), "is no longer in", "put back a copy of the store")


def test_a_locked_database(study: tuple[Path, list[str]], command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, arguments = study
    monkeypatch.setattr(search.tracking.store, "_WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("BEGIN IMMEDIATE")
        refused(command("search", arguments), "mlflow.db is locked by another program", "close what has it open")
        database.rollback()


def test_a_database_damaged_under_way(study: tuple[Path, list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    root, _ = study
    tracker = Tracker(root, "thawline")
    size = (root / "mlflow.db").stat().st_size
    for suffix in ("", "-wal"):
        if (root / f"mlflow.db{suffix}").exists():
            with (root / f"mlflow.db{suffix}").open("r+b") as file:
                file.write(b"x" * size)
    with pytest.raises(StoreError, match=r"mlflow\.db is damaged") as caught:
        tracker.start_parent("study", {}, {})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("places", [("studies",), ("", "mlflow.db"), ("", "studies", "mlflow.db", "studies/tiny.lock")])
def test_a_read_only_store(places: tuple[str, ...], study: tuple[Path, list[str]], command: Any) -> None:
    root, arguments = study
    for place in places:
        (root / place).chmod(0o444 if (root / place).is_file() else 0o555)
    try:
        with without_power():
            outcome = command("search", arguments)
    finally:
        for place in places:
            (root / place).chmod(0o755)
    refused(outcome, "cannot be written", "take another tracking.root")


def test_a_folder_that_becomes_read_only_hides_no_other_error(tmp_path: Path) -> None:
    with without_power(), pytest.raises(RuntimeError, match="of the search itself"), owned(tmp_path, "study"):
        tmp_path.chmod(0o555)
        raise RuntimeError("of the search itself")
    tmp_path.chmod(0o755)
    with owned(tmp_path, "study"):
        pass
    assert not (tmp_path / "study.owner.json").exists()


def test_an_image_that_changed_or_vanished(searched: Any, study: tuple[Path, list[str]], command: Any) -> None:
    root, arguments = study
    images = root.parent / "images"
    shutil.copytree(searched.images, images)
    arguments = [
        argument if "data.path" not in argument else f"data.path={images / 'manifest.csv'}" for argument in arguments
    ]
    (images / "a" / "03.png").write_bytes((images / "a" / "04.png").read_bytes())
    words = "study 'tiny' was made with other images or labels (some were added, removed or changed since)"
    refused(command("search", arguments), words, "search.fresh=true to start anew")
    (images / "a" / "03.png").unlink()
    refused(command("search", arguments), "manifest.csv: row 5: no such file", "a/03.png")


def test_a_second_driver_is_told_of_the_first(study: tuple[Path, list[str]], command: Any) -> None:
    root, arguments = study
    with owned(root / "studies", "tiny"):
        outcome = command("search", arguments)
    refused(outcome, f"study 'tiny' is being run by process {os.getpid()}, started 20")
    assert re.search(r"started \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00; wait for it, or take another", outcome.err)
    owner = root / "studies" / "tiny.owner.json"
    for text, words in {
        '{"pid": 7, "started": "noon\\u001b[31m", "host": "mill"}': r"process 7 on mill, started noon\x1b[31m",
        '{"pid": "7; id"}': "another process",
        "[]": "another process",
        "": "another process",
    }.items():
        owner.write_text(text)
        with FileLock(root / "studies" / "tiny.lock"):
            refused(command("search", arguments), f"is being run by {words};")
    owner.unlink()


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT]", "make room on the disk, then run"),
        ("(sqlite3.OperationalError) disk I/O error\n[SQL: INSERT]", "make room on the disk if it is full"),
        ("(sqlite3.OperationalError) database is locked\n[SQL: INSERT]", "locked by another program"),
        ("(sqlite3.OperationalError) attempt to write a readonly database", "make mlruns writable"),
        ("(sqlite3.DatabaseError) database disk image is malformed", "put back a copy of it"),
        ("[Errno 28] No space left on device", "make room on the disk, then run"),
        ("something else", "run the same command again, and put back a copy"),
    ],
)
def test_what_the_store_says_becomes_a_line_with_the_way_out(problem: str, words: str) -> None:
    with pytest.raises(StoreError) as caught, search.tracking.store.explained(Path("mlruns")):
        raise OSError(problem)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "SQL" not in str(caught.value)
