"""The ledger: what is written stays, what fails leaves nothing, and other files are not taken for one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lightning_modules.errors import InputError
from search.retrain.ledger import Ledger, ledger_path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path, "plates")


def test_reading_makes_no_file(ledger: Ledger, tmp_path: Path) -> None:
    assert (ledger.months(), ledger.promotions(), ledger.roles(), ledger.latest()) == ([], [], {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_month_and_its_promotion_are_closed_in_one_transaction(ledger: Ledger, tmp_path: Path) -> None:
    row = ledger.begin("2020-02", "data", "settings", images=3, why="new", champion="1")
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        ledger.finish([row], "promoted", "better", {}, champion="2",
                      promotion={"kind": "promotion", "to_version": None, "reason": "better"})  # fmt: skip
    assert Ledger(tmp_path, "plates").months() == [row] and row.state == "running"
    ledger.finish([row], "promoted", "better", {"a": 0.5}, challenger="2", champion="2",
                  promotion={"kind": "promotion", "to_version": "2", "reason": "better"})  # fmt: skip
    (done,), (promotion,) = Ledger(tmp_path, "plates").months(), Ledger(tmp_path, "plates").promotions()
    assert (done.state, done.outcome, done.numbers, done.champion_after) == ("done", "promoted", {"a": 0.5}, "2")
    assert (promotion.month, promotion.to_version, promotion.state) == ("2020-02", "2", "decided")
    ledger.mark_done(promotion)
    assert [one.state for one in ledger.promotions()] == ["done"]


def test_steps_are_there_once_they_are_finished(ledger: Ledger) -> None:
    row = ledger.begin("2020-02", "data", "settings", images=3, why="new", champion="1")
    ledger.begin_step(row, "check")
    assert ledger.steps(row) == {}
    ledger.finish_step(row, "check", {"notes": ["섬"]}, 0.5)
    ledger.begin_step(row, "look")
    assert ledger.steps(row) == {"check": ({"notes": ["섬"]}, 0.5)}


def test_a_role_is_for_ever_and_of_one_model(ledger: Ledger, tmp_path: Path) -> None:
    row = ledger.begin("2020-02", "data", "settings", images=3, why="new", champion="1")
    ledger.give_roles(row, {"x": ("held_out", "2020-01")})
    ledger.give_roles(row, {"x": ("training", "2020-02"), "y": ("training", "2020-02")})
    assert ledger.roles() == {"x": ("held_out", "2020-01"), "y": ("training", "2020-02")}
    assert Ledger(tmp_path, "coils").roles() == {}


def test_a_champion_was_trained_on_what_was_there_when_it_was_made(ledger: Ledger) -> None:
    """In the order the months were done: a late image of an old month is new to a champion of a later one."""
    for number, month in enumerate(("2020-01", "2020-02", "2020-01"), start=1):
        row = ledger.begin(month, f"data {number}", "settings", images=3, why="new", champion=None)
        ledger.give_roles(row, {f"{number}-{role}": (role, month) for role in ("training", "held_out", "regression")})
        promotion = {"kind": "promotion", "to_version": str(number), "reason": "better"} if number < 3 else None
        ledger.finish([row], "promoted", "better", {}, champion=str(number), promotion=promotion)
    ledger.decide(kind="rollback", to_version="1", reason="by hand")
    assert ledger.trained_on("1") == {"1-training"}
    assert ledger.trained_on("2") == {"1-training", "2-training"}
    assert ledger.trained_on("7") == frozenset()


def test_a_ledger_of_the_first_version_is_brought_up_to_date(ledger: Ledger, tmp_path: Path) -> None:
    row = ledger.begin("2020-01", "data", "settings", images=3, why="new", champion=None)
    ledger.give_roles(row, {"x": ("training", "2020-01")})
    ledger.finish([row], "bootstrap", "first", {}, champion="1",
                  promotion={"kind": "bootstrap", "to_version": "1", "reason": "first"})  # fmt: skip
    ledger.close()
    with closing(sqlite3.connect(ledger_path(tmp_path))) as database:
        database.execute("ALTER TABLE images DROP COLUMN month_id")
        database.execute("PRAGMA user_version = 1")
    assert ledger.roles() == {"x": ("training", "2020-01")} and ledger.trained_on("1") == {"x"}
    second = ledger.begin("2020-02", "data", "settings", images=3, why="new", champion="1")
    ledger.give_roles(second, {"y": ("training", "2020-02")})
    assert ledger.trained_on("1") == {"x"}


def test_a_month_that_was_given_up_is_not_its_latest(ledger: Ledger) -> None:
    first = ledger.begin("2020-02", "data", "settings", images=3, why="new", champion="1")
    ledger.finish([first], "kept", "no better", {}, champion="1")
    second = ledger.begin("2020-02", "other", "settings", images=4, why="its data changed", champion="1")
    ledger.abandon(second, "its data changed meanwhile")
    assert ledger.latest()["2020-02"].id == first.id
    assert [row.state for row in ledger.months()] == ["done", "abandoned"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"these are notes of mine, not a database at all", "is damaged .file is not a database.; put back a copy")],
    ids=["text"],
)
def test_another_file_is_refused_and_left_alone(ledger: Ledger, tmp_path: Path, content: bytes, words: str) -> None:
    ledger_path(tmp_path).write_bytes(content)
    with pytest.raises(InputError, match=words):
        ledger.months()
    assert ledger_path(tmp_path).read_bytes() == content


def test_a_ledger_of_a_later_version_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    with closing(sqlite3.connect(ledger_path(tmp_path))) as database:
        database.execute("PRAGMA user_version = 3")
    with pytest.raises(InputError, match="is a ledger of version 3; this program reads up to 2"):
        ledger.months()
