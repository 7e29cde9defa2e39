"""Versions that were deleted, files that are gone, a ledger that is damaged or locked: one line, and a way out."""

from __future__ import annotations

import gc
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import split

import pytest

from search.retrain import ledger as ledger_module
from search.retrain.ledger import ledger_path
from tests.search.retrain.conftest import Months, Outcome, Saved
from tests.search.retrain.test_rollback import promoted, twice  # noqa: F401 (fixtures)

LOOK = ("retrain.depth=none",)


def refused(months: Months, *arguments: str) -> str:
    """What a command says in one line, that changes nothing."""
    before = (months.ledger.months(), months.ledger.promotions(), months.aliases, len(months.runs()))
    told = months.retrain(*arguments)
    assert (told.code, told.err.count("\n")) == (2, 1), told
    assert (months.ledger.months(), months.ledger.promotions(), months.aliases, len(months.runs())) == before
    return told.err


def way_out(line: str) -> list[str]:
    """Arguments of the command that a line names at its end."""
    found = re.search(r"python -m search\.retrain (.+)\n", line)
    assert found, line
    return split(found[1])


@contextmanager
def without(folder: Path) -> Iterator[None]:
    """While the block runs, the folder is elsewhere."""
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    folder.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(folder)


def test_a_rollback_to_a_deleted_version_decides_nothing(promoted: Months) -> None:  # noqa: F811
    months = promoted
    months.client.delete_model_version(months.model, "1")
    said = refused(months, "rollback", "reason=x")
    assert said.startswith("retrain: model sheets has no version 1; ")
    assert "put back a copy of the store" in said
    assert months.retrain(*LOOK).out.startswith("Nothing to do: ")


def test_a_ledger_that_was_wedged_by_such_a_rollback_has_a_way_out(promoted: Months) -> None:  # noqa: F811
    months = promoted
    months.ledger.decide(kind="rollback", from_version="2", to_version="1", previous_version="2", reason="x")
    months.client.delete_model_version(months.model, "1")
    said = refused(months)
    assert said.startswith("retrain: version 1 of model sheets, its champion, is not in MLflow any more: ")
    told = months.retrain(*way_out(said))
    assert (told.code, told.out) == (0, "Champion: version 2, rolled back from version 1.\n")
    assert months.aliases == {"champion": "2"}
    assert {one.state for one in months.ledger.promotions()} == {"done"}
    assert months.retrain(*LOOK).out.startswith("Nothing to do: ")


def test_a_champion_that_was_deleted_by_hand(promoted: Months) -> None:  # noqa: F811
    months = promoted
    months.client.delete_model_version(months.model, "2")
    said = refused(months)
    assert said.startswith("retrain: version 2 of model sheets, its champion, is not in MLflow any more: ")
    assert way_out(said) == ["rollback", "to=1", "reason=TEXT"]
    assert months.retrain("rollback", "reason=it was deleted").code == 0
    assert months.aliases == {"champion": "1"}
    assert months.retrain(*LOOK).out.startswith("Nothing to do: ")


@pytest.mark.slow
def test_a_champion_whose_files_are_gone(promoted: Months, tmp_path: Path) -> None:  # noqa: F811
    own = Months(Path(shutil.copytree(promoted.images, tmp_path / "months")), promoted.model, promoted.root)
    own.arrives("2020-03")
    with without(own.model_folder("2")):
        said = refused(own, *LOOK)
        assert "version 2 of model sheets is not a model of Thawline, or its files are gone" in said
        told = own.retrain(*way_out(said))
        assert (told.code, told.out) == (0, "Champion: version 1, rolled back from version 2.\n")
        assert own.retrain(*LOOK).code == 0 and own.aliases == {"champion": "1", "previous": "2"}
        # Nor does it go back to what cannot be loaded.
        assert "its files are gone" in refused(own, "rollback", "to=2", "reason=x")


def test_another_version_of_the_same_number_is_never_champion(promoted: Months) -> None:  # noqa: F811
    """MLflow counts from 1 again where a whole model was deleted, and a search may have registered what it found."""
    months = promoted
    version = months.client.get_model_version(months.model, "1")
    months.client.delete_registered_model(months.model)
    months.client.create_registered_model(months.model)
    other = months.client.create_run("1").info.run_id
    assert months.client.create_model_version(months.model, version.source, other).version == 1
    for command in ((), ("rollback", "reason=x"), ("rollback", "reason=x", "to=1")):
        said = refused(months, *command)
        assert "put back a copy of the store, or take another tracking.model_name for a new champion" in said
    assert months.aliases == {}


def test_a_model_that_was_deleted_by_hand(months: Months) -> None:
    months.client.delete_registered_model(months.model)
    for command in ((), ("rollback", "reason=x")):
        said = refused(months, *command)
        assert said.endswith(
            "put back a copy of the store, or take another tracking.model_name for a new champion\n"
        ) or ("so there is none before it" in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["rollback", "reason=x", "to=7"],
            "to must be a version that was champion before, got '7'; those of model sheets: 1",
        ),
        (
            ["rollback", "reason=x", "to=2"],
            "to must be a version that was champion before, got '2'; those of model sheets: 1",
        ),
        (["rollback", "reason=x", "to=1", "to=1"], "to must be given once, got it again as 'to=1'"),
        (["to=1"], "to= is for python -m search.retrain rollback, got to=1"),
    ],
    ids=["unknown", "is it", "twice", "no rollback"],
)
def test_bad_targets(promoted: Months, arguments: list[str], said: str) -> None:  # noqa: F811
    assert said in refused(promoted, *arguments)


@pytest.mark.parametrize(
    ("lost", "more", "said", "states"),
    [
        ("challenger", (), "its challenger is gone: model sheets has no version 2", ["done", "abandoned", "done"]),
        pytest.param(
            "run",
            (),
            "begun anew: its run was deleted in MLflow",
            ["done", "abandoned", "done"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "run",
            ("tracking.restore=true",),
            "continued after an interruption",
            ["done", "done"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_was_deleted_while_a_month_was_interrupted(
    months: Months, monkeypatch: pytest.MonkeyPatch, lost: str, more: tuple[str, ...], said: str, states: list[str]
) -> None:
    months.arrives("2020-02", images=6)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    train = ("retrain.depth=0", "retrain.epochs=1")
    with monkeypatch.context() as patched:
        patched.setattr("search.retrain.month_run.compare_models", interrupted)
        assert months.retrain(*train).code == 130
    if lost == "challenger":
        months.client.delete_model_version(months.model, "2")
    else:
        months.client.delete_run(months.ledger.months()[-1].run_id)
    outcome = months.retrain(*train, *more)
    assert outcome.code == 0, outcome.err
    assert said in outcome.out
    assert [row.state for row in months.ledger.months()] == states


def test_a_locked_ledger(months: Months, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_WAIT_SECONDS", 0.1)
    months.arrives("2020-02")
    with closing(sqlite3.connect(ledger_path(months.root), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "retraining.db is locked by another program (database is locked); close what has it open" in refused(
            months, *LOOK
        )
    assert months.retrain(*LOOK).code == 0


@pytest.mark.slow
def test_a_damaged_ledger(first: tuple[Months, Outcome], months: Months, saved: Saved, tmp_path: Path) -> None:
    file = ledger_path(months.root)
    gc.collect()  # a ledger that an earlier test's traceback held may still be open
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode = DELETE")
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
        damaged = file.read_bytes()
        for command in ((), ("rollback", "reason=x"), ("history",)):
            told = months.retrain(*command)
            assert (told.code, told.err.count("\n")) == (2, 1), told
            assert "retraining.db is damaged (" in told.err and "put back a copy of it, or move it away and" in told.err
        assert file.read_bytes() == damaged and months.aliases == {"champion": "1"}
        # One way out: without it, another model begins anew.
        file.rename(tmp_path / "damaged.db")
        assert months.retrain("tracking.model_name=coils").code == 0
    finally:
        for rest in file.parent.glob("retraining.db*"):
            rest.unlink()
        file.write_bytes(whole)
    assert months.retrain().out.startswith("Nothing to do: ")  # the other: a copy
