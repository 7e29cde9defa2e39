"""`rollback` and `history`: the previous champion is put back, and every change of champion is remembered, with why."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copytree

import pytest

from search.retrain.champion import line_of_champions
from search.retrain.ledger import Ledger, PromotionRow, ledger_path
from tests.search.retrain.conftest import LEARNS, Months, Outcome, Saved


@pytest.fixture(scope="module")
def twice(
    first: tuple[Months, Outcome], saved: Saved, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Months, Saved]:
    """Version 2 is champion since 2020-02, version 1 was; and the store as it was then."""
    made, folder = first[0], tmp_path_factory.mktemp("twice")
    saved.put_back()
    months = Months(Path(copytree(made.images, folder / "months")), made.model, made.root)
    months.arrives("2020-02", drift=True)
    assert months.retrain(*LEARNS).code == 0
    assert months.aliases == {"champion": "2", "previous": "1"}
    return months, Saved(made.root, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def promoted(twice: tuple[Months, Saved], saved: Saved) -> Iterator[Months]:
    """The same, put back for each test."""
    twice[1].put_back()
    yield twice[0]
    saved.put_back()


def test_back_and_forth_is_remembered_in_ledger_and_mlflow(promoted: Months) -> None:
    months, reason = promoted, "점 is missed [on line 3]"
    said = months.retrain("rollback", f"reason={reason}")
    assert (said.code, said.out) == (0, "Champion: version 1, rolled back from version 2.\n")
    assert months.aliases == {"champion": "1", "previous": "2"}
    row = months.ledger.promotions()[-1]
    assert (row.kind, row.month, row.from_version, row.to_version, row.previous_version, row.state) == (
        "rollback", None, "2", "1", "2", "done",
    )  # fmt: skip
    assert row.reason == reason
    run = months.client.get_run(str(row.run_id))
    assert (run.info.status, run.data.tags["decision"], run.data.tags["kind"]) == ("FINISHED", reason, "rollback")
    assert (run.data.params["from_version"], run.data.params["to_version"]) == ("2", "1")
    # No month is done again for it, and the way forward is the same command.
    assert "Nothing to do" in months.retrain().out and months.aliases["champion"] == "1"
    assert months.retrain("rollback", "to=2", "reason=it was the lamp").code == 0
    assert months.aliases == {"champion": "2", "previous": "1"}

    result = months.retrain("history")
    assert result.code == 0
    before = months.ledger.months()[-1].numbers["accuracy_before"]
    for words in ("bootstrap", "promotion 2020-02", "rollback", f"{before:.3f}->", "점 is missed"):
        assert words in result.out
    kinds = [(one.kind, one.from_version, one.to_version) for one in months.ledger.promotions()]
    assert kinds == [("bootstrap", None, "1"), ("promotion", "1", "2"), ("rollback", "2", "1"), ("rollback", "1", "2")]
    assert all(one.decided and one.finished and one.run_id for one in months.ledger.promotions())


def test_a_second_rollback_never_puts_back_what_the_first_took_away(promoted: Months) -> None:
    """Whoever finds that the champion before is bad too wants the one before that, not the one just taken back."""
    months = promoted
    assert months.retrain("rollback", "reason=scratches are missed").code == 0
    said = months.retrain("rollback", "reason=still missed")
    assert said.code == 2 and said.err.count("\n") == 1
    assert "version 1 is the first champion of model sheets, so there is none before it" in said.err
    assert "rollback to=2 reason=TEXT" in said.err
    assert months.aliases == {"champion": "1", "previous": "2"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([("bootstrap", "1"), ("promotion", "2"), ("promotion", "3")], ["1", "2", "3"]),
        ([("bootstrap", "1"), ("promotion", "2"), ("promotion", "3"), ("rollback", "2")], ["1", "2"]),
        ([("bootstrap", "1"), ("promotion", "2"), ("promotion", "3"), ("rollback", "1")], ["1"]),
        ([("bootstrap", "1"), ("promotion", "2"), ("rollback", "1"), ("promotion", "3")], ["1", "3"]),
        ([("bootstrap", "1"), ("promotion", "2"), ("rollback", "1"), ("rollback", "2")], ["1", "2"]),
        ([("bootstrap", "1"), ("promotion", "2"), ("rollback", "1"), ("promotion", "3"), ("rollback", "2")],
         ["1", "3", "2"]),
    ],
)  # fmt: skip
def test_the_line_of_champions_leaves_out_what_was_taken_back(changes: list[tuple[str, str]], line: list[str]) -> None:
    rows = [
        PromotionRow(number, kind, None, None, version, None, "", {}, None, "done", "", "")
        for number, (kind, version) in enumerate(changes)
    ]
    assert line_of_champions(rows) == line


@pytest.mark.parametrize("kind", ["promotion", "rollback"])
def test_killed_before_the_alias_moved(promoted: Months, kind: str) -> None:
    """The ledger has decided, and the process died before anything else: the next call of any kind moves the alias."""
    months = promoted
    if kind == "rollback":
        assert months.retrain("rollback", "reason=first").code == 0
    last = months.ledger.promotions()[-1]
    with closing(sqlite3.connect(ledger_path(months.root))) as database, database:
        database.execute("UPDATE promotions SET state = 'decided', finished = NULL WHERE id = ?", (last.id,))
    months.client.set_registered_model_alias(months.model, "champion", last.from_version)
    months.client.delete_registered_model_alias(months.model, "previous")
    again = ("rollback", "reason=first") if kind == "rollback" else ()
    assert months.retrain(*again).code == 0
    assert months.aliases == {"champion": last.to_version, "previous": last.previous_version}
    assert [one.id for one in months.ledger.promotions()][-1] == last.id  # nothing was decided twice
    assert {one.state for one in months.ledger.promotions()} == {"done"}
    assert months.runs("attributes.status = 'RUNNING'") == []


def test_an_alias_moved_by_hand_is_not_overruled(promoted: Months) -> None:
    months = promoted
    months.client.set_registered_model_alias(months.model, "champion", "1")
    ledger = months.ledger.promotions()
    for verb in ((), ("rollback", "reason=x")):
        said = months.retrain(*verb)
        assert said.code == 2 and said.err.count("\n") == 1
        assert "the alias champion of model sheets names version 1, the ledger says 2: it was moved by hand" in said.err
    assert months.ledger.promotions() == ledger and months.aliases == {"champion": "1", "previous": "1"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "rollback needs reason=TEXT"),
        (["reason="], "reason must not be empty; it is why the champion is rolled back"),
        (["reason=  "], "reason must be 1 to 1000 printable characters, got '  '"),
        (["reason=a\nb"], r"reason must be 1 to 1000 printable characters, got 'a\nb'"),
        (["reason=" + "x" * 1001], "reason must be 1 to 1000 printable characters, got 'xxx"),
        (["reason=a", "reason=b"], "reason must be given once, got it again as 'reason=b'"),
        (["reason=a", "month=2020-01"], "month= is for python -m search.retrain alone, got rollback with month="),
        (["reason=a", "retrain.gard=0.1"], "retrain.gard"),
        (["reason=a"], "version 1 is the first champion of model sheets, so there is none before it"),
        (["reason=a", "tracking.model_name=other"], "model other has no champion yet, so there is nothing to roll"),
        (["reason=a", "tracking.root=nowhere"], "nothing to roll back: no file nowhere/retraining.db"),
    ],
    ids=["none", "empty", "spaces", "newline", "long", "twice", "month", "unknown", "first", "no model", "no store"],
)
def test_bad_rollbacks_are_one_line_and_change_nothing(
    months: Months, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger, runs = months.ledger.promotions(), len(months.runs())
    result = months.retrain("rollback", *arguments)
    assert result.code == 2
    assert said in result.err and result.err.count("\n") == 1
    assert (months.ledger.promotions(), len(months.runs())) == (ledger, runs)
    assert months.aliases == {"champion": "1"}
    assert not months.images.parent.joinpath("nowhere").exists()
    assert Ledger(months.root, "other").promotions() == []


def test_history_of_a_model_that_has_none(months: Months) -> None:
    said = months.retrain("history", "tracking.model_name=other")
    assert (said.code, said.out) == (0, "Model other has had no champion yet.\n")
    assert months.retrain("history", "reason=x").code == 2
