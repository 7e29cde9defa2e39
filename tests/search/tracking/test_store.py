"""A store that every command meets as others left it: of another MLflow, read-only, with things deleted."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.errors import InputError
from search import load_study
from tests.privileges import without_power
from tests.store_copies import copy_store

READING = ("predict", "explain", "history", "notebook")
WRITING = ("search", "report", "rollback", "ui")


def run_sql(root: Path, *queries: str, values: dict[str, Any] | None = None) -> None:
    """Run the queries in a store that nobody has open; :NAME stands for a value."""
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None)) as database:
        for query in queries:
            database.execute(query, values or {})


@pytest.fixture
def store(finished: SimpleNamespace, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A copy of the finished study, whose winner is champion."""
    root = copy_store(finished.root, tmp_path / "mlruns")
    version = load_study("tiny", root).winner.version  # type: ignore[union-attr]
    run_sql(
        root,
        "DELETE FROM registered_model_aliases",
        "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('thawline', 'champion', :version)",
        values={"version": version},
    )
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    image = next(path for path in sorted(stripes.rglob("*.png")))
    return SimpleNamespace(root=root, images=stripes, image=image, arguments=finished.arguments)


@pytest.fixture
def say(
    store: SimpleNamespace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int | None, str]]:
    """`say(command, *more)`: exit code, and what the command says on its error stream."""
    monkeypatch.setattr(os, "execv", lambda *_: None)  # or the UI takes the place of the tests

    def call(command: str, *more: str) -> tuple[int, str]:
        place, out = f"tracking.root={store.root}", Path(f"{command}-{time.monotonic_ns()}")
        if command == "notebook":
            try:
                load_study("tiny", store.root).explain(store.image)
            except InputError as error:
                return 2, f"{error}\n"
            return 0, ""
        module, arguments = {
            "search": ("search.__main__", [
                "data=folder", f"data.path={store.images}", "data.size=[32,32]", "model=lenet5", "search.study=other",
                "search.evidence=false", "executor=inline", "executor.threads=1", place,
            ]),
            "predict": ("search.predict.__main__", [f"images={store.image}", f"to={out}.csv", place]),
            "explain": ("search.explain.__main__", [
                f"images={store.image}", "model=champion", f"out={out}", "figures=0", f"root={store.root}",
            ]),
            "report": ("search.report.__main__", ["study=tiny", f"root={store.root}", f"to={out}.html"]),
            "history": ("search.retrain.__main__", ["history", place]),
            "rollback": ("search.retrain.__main__", ["rollback", "reason=of a test", place]),
            "ui": ("search.ui", [place]),
        }[command]  # fmt: skip
        capfd.readouterr()
        code = import_module(module).main([*arguments, *more])
        said = capfd.readouterr().err.splitlines(keepends=True)
        return code, "".join(line for line in said if not line.endswith("; model= names another\n"))

    return call


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE alembic_version SET version_num = 'f00000000001'", "is of a newer MLflow"),
        ("UPDATE alembic_version SET version_num = '451aebb31d03'", "is of an older MLflow"),
        ("DELETE FROM alembic_version", "holds no tables of MLflow"),
        (b"", "holds no tables of MLflow"),
        (b"no database " * 400, "is damaged (file is not a database)"),
    ],
    ids=["newer", "older", "no version", "empty", "text"],
)
def test_every_command_refuses_a_store_it_cannot_use_in_one_line(
    damage: str | bytes, words: str, store: SimpleNamespace, say: Callable[..., tuple[int, str]]
) -> None:
    (store.root / "retraining.db").touch()
    if isinstance(damage, str):
        run_sql(store.root, damage)
    else:
        (store.root / "mlflow.db").write_bytes(damage)
    before, files = (store.root / "mlflow.db").read_bytes(), sorted(store.root.rglob("*"))
    for command in (*READING, *WRITING):
        if command != "history":  # it reads the ledger alone
            code, said = say(command)
            assert (code, said.count("\n")) == (2, 1) and words in said and "goes on" not in said, (command, said)
            assert "is the default" not in said
            assert sorted(store.root.rglob("*")) == files, command
    assert (store.root / "mlflow.db").read_bytes() == before


@pytest.mark.slow  # MLflow's own command, and a store made anew
def test_the_ways_out_of_an_older_schema_and_of_an_empty_file_work(
    store: SimpleNamespace, say: Callable[..., tuple[int, str]], run_search_warm: Callable[..., Any]
) -> None:
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config

    command.downgrade(_get_alembic_config(f"sqlite:///{store.root / 'mlflow.db'}"), "-1")
    code, said = say("predict")
    assert code == 2 and "is of an older MLflow" in said
    words = shlex.split(said.split("then run: python")[1])
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    assert say("predict") == (0, "")

    (store.root / "mlflow.db").write_bytes(b"")
    (store.root / "mlflow.db").rename(store.root / "away.db")
    arguments = (*store.arguments, "search.trials=1", "search.fresh=true", f"tracking.root={store.root}")
    outcome = run_search_warm(*arguments)
    assert outcome.code == 0, outcome.err


# What a program does with a database that has it open when the command reads it, or that was killed.
OTHERS = {
    "closed": "",
    "open": "c.execute('CREATE TABLE other (a)'); print(1, flush=True); sys.stdin.read()",
    "killed": "c.execute('CREATE TABLE other (a)'); os.kill(os.getpid(), 9)",
    "killed amid a transaction": "c.execute('PRAGMA journal_mode=DELETE'); c.execute('PRAGMA cache_size=1');"
    "c.execute('BEGIN'); c.execute('CREATE TABLE other (a)');"
    "[c.execute('INSERT INTO other VALUES (randomblob(4000))') for _ in range(100)]; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_store_that_may_not_be_written_is_read(
    other: str, store: SimpleNamespace, say: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.retrain.ledger import Ledger

    with closing(Ledger(store.root, "thawline")) as ledger:
        ledger.decide(kind="bootstrap", to_version="1", reason="of a test")
    words = f"import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); {OTHERS[other]}"
    program = subprocess.Popen(
        [sys.executable, "-c", words, str(store.root / "mlflow.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout is not None and program.stdin is not None
    program.stdout.readline()
    if other != "open":
        program.wait()
    if other == "killed":
        (store.root / "mlflow.db-shm").unlink()
    assert (store.root / "mlflow.db-wal").exists() is (other in ("open", "killed"))
    assert (store.root / "mlflow.db-journal").exists() is (other == "killed amid a transaction")
    places = [store.root, *store.root.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    before = {place: (place.stat().st_mtime_ns, place.stat().st_size) for place in places}
    try:
        with without_power():
            for command in READING:
                code, said = say(command)
                assert code == 0 and "Traceback" not in said, (command, said)
            for command in WRITING:
                code, said = say(command)
                assert (code, said.count("\n")) == (2, 1) and "cannot be" in said and "writable" in said, said
        assert before == {place: (place.stat().st_mtime_ns, place.stat().st_size) for place in before}
        assert set(store.root.rglob("*")) == set(before) - {store.root}
    finally:
        for place in places:
            place.chmod(0o755)
        program.stdin.close()
        program.wait()
        program.stdout.close()
    if other == "closed":  # the way out
        store.root = Path(shutil.copytree(store.root, store.root.with_name("copy")))
        assert say("ui") == (None, "")  # it writes the place of the copy into it, and becomes MLflow


@pytest.mark.parametrize("place", ["", "mlflow.db", "artifacts"])
def test_a_store_that_may_not_be_read_is_refused_in_one_line(
    place: str, store: SimpleNamespace, say: Callable[..., tuple[int, str]]
) -> None:
    (store.root / "retraining.db").touch()
    (store.root / place).chmod(0)
    try:
        with without_power():
            found = {command: say(command) for command in (*READING, *WRITING)}
    finally:
        (store.root / place).chmod(0o755)
    for command, (code, said) in found.items():
        if place == "" or (command not in ("history", "ui", "rollback") or (command, place) == ("ui", "mlflow.db")):
            assert (code, said.count("\n")) == (2, 1) and "cannot be" in said, (command, said)


def test_a_locked_store_of_another_is_waited_for_and_refused(
    store: SimpleNamespace, say: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tracking.store._WAIT_SECONDS", 0.1)
    run_sql(store.root, "PRAGMA journal_mode=DELETE")
    (store.root / "mlflow.db").chmod(0o444)
    with closing(sqlite3.connect(store.root / "mlflow.db", isolation_level=None)) as database, without_power():
        database.execute("BEGIN EXCLUSIVE")
        code, said = say("predict")
    assert code == 2 and "locked by another program" in said and said.count("\n") == 1


def test_a_file_in_place_of_the_store(store: SimpleNamespace, say: Callable[..., tuple[int, str]]) -> None:
    store.root = store.image
    for command in (*READING, "search", "report", "ui"):
        code, said = say(command)
        assert (code, said.count("\n")) == (2, 1), (command, said)
        assert "tracking.root must be a folder" in said, (command, said)


def test_what_is_deleted_by_hand_is_named_and_the_rest_goes_on(
    store: SimpleNamespace, say: Callable[..., tuple[int, str]]
) -> None:
    run_id = load_study("tiny", store.root).run_id
    tables = ("logged_model_metrics", "logged_model_params", "logged_model_tags", "logged_models")
    run_sql(store.root, *(f"DELETE FROM {table}" for table in tables))  # noqa: S608 (names of tables of this file)
    assert say("predict") == (0, "")  # its files and its version are there
    run_sql(store.root, "DELETE FROM runs WHERE run_uuid = :run", values={"run": run_id})
    code, said = say("predict", f"model={run_id}")
    assert code == 2 and f"there is no run {run_id};" in said and said.count(str(run_id)) == 1
    code, said = say("report")
    assert code == 2 and "deleted for good" in said and "put back a copy of mlflow.db" in said
    shutil.rmtree(store.root / "artifacts")
    code, said = say("predict")
    assert code == 2 and "its files are gone" in said and said.count("\n") == 1
    run_sql(store.root, "DELETE FROM registered_model_aliases", "DELETE FROM model_version_tags",
            "DELETE FROM model_versions", "DELETE FROM registered_models")  # fmt: skip
    code, said = say("predict")
    assert code == 2 and "none is registered yet" in said


@pytest.mark.slow
@pytest.mark.long  # test_deleted_runs.py deletes between two searches
@pytest.mark.parametrize("gone", [False, True], ids=["deleted", "purged"])
def test_a_run_deleted_while_its_search_is_running(
    gone: bool, store: SimpleNamespace, run_search_warm: Callable[..., Any]
) -> None:
    words = [*store.arguments, "search.trials=40", f"tracking.root={store.root}"]
    run_id = load_study("tiny", store.root).run_id
    process = subprocess.Popen([sys.executable, "-m", "search", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"trial"):
            break
    query = "DELETE FROM runs" if gone else "UPDATE runs SET lifecycle_stage = 'deleted'"
    run_sql(store.root, query + " WHERE run_uuid = :run", values={"run": run_id})
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 2 and said.count("\n") == 1, said
    assert ("put back a copy" if gone else "tracking.restore=true") in said and "goes on where" not in said
    if not gone:
        outcome = run_search_warm(*store.arguments, f"tracking.root={store.root}", "tracking.restore=true")
        assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    "name", ["MLFLOW_ENABLE_WORKSPACES", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"]
)
def test_variables_of_mlflow_lead_nowhere_else(
    name: str, store: SimpleNamespace, say: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "true" if "ENABLE" in name else "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_REGISTRY_STORE_URI", "sqlite:///elsewhere.db")
    assert say("predict") == (0, "")
    left: dict[str, str] = {}
    monkeypatch.setattr(os, "execv", lambda *_: left.update(os.environ))
    say("ui")
    assert left and "MLFLOW_REGISTRY_STORE_URI" not in left and left["MLFLOW_DISABLE_TELEMETRY"] == "true"
