"""What the ledger holds stays in use: regression set, training images, held-out images; what is lost is said."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from search.retrain.month import comparison
from search.retrain.month.record import Decision
from tests.search.retrain.conftest import CLASSES, Months

FOUR = (*CLASSES, "crack")
LOOK = ("retrain.depth=none",)
TRAIN = ("retrain.depth=0", "retrain.epochs=1")


def older_images(months: Months) -> float:
    """How many images of older months the last month could train on."""
    run = months.client.get_run(str(months.ledger.months()[-1].run_id))
    return float(run.data.metrics["month_images/of older months"])


def test_without_the_whole_regression_set_the_champion_stays(months: Months, monkeypatch: pytest.MonkeyPatch) -> None:
    months.arrives("2020-02", images=6)
    rmtree(months.images / "2020-01")
    ledger, runs = months.ledger.months(), len(months.runs())
    said = months.retrain(*TRAIN)
    assert (said.code, said.err.count("\n")) == (2, 1), said.out
    assert said.err.startswith("retrain: 6 of 6 images of the regression set cannot be used any more (2020-01); ")
    assert (months.ledger.months(), len(months.runs()), months.aliases) == (ledger, runs, {"champion": "1"})
    # Both ways out that are named: only to look, or to say so.
    looked = months.retrain(*LOOK)
    assert looked.code == 0 and "6 of 6 images of the regression set" in looked.out
    monkeypatch.setattr(comparison, "decide", lambda *_, **__: Decision(True, "promoted: planted"))
    said = months.retrain(*TRAIN, "retrain.regression=shrink", "month=2020-02")
    assert said.code == 0, said.err
    row = months.ledger.months()[-1]
    assert (row.outcome, row.numbers["regression_images"]) == ("promoted", 0)
    run = months.client.get_run(str(row.run_id))
    caution = "6 of 6 images of the regression set cannot be used any more (2020-01); retrain.regression=shrink"
    page = Path(run.info.artifact_uri.removeprefix("file://")) / "month.html"
    assert run.data.tags["caution/0"].startswith(caution) and caution in page.read_text(encoding="utf-8")


def test_part_of_the_regression_set_is_not_the_regression_set(months: Months, tmp_path: Path) -> None:
    copytree(months.images, tmp_path / "copy")
    rmtree(months.images / "2020-01" / "top")
    said = months.retrain(*TRAIN)
    assert said.code == 2
    assert re.match(r"retrain: [1-5] of 6 images of the regression set cannot be used any more \(2020-01\); ", said.err)
    copytree(tmp_path / "copy", months.images, dirs_exist_ok=True)
    assert months.retrain(*TRAIN).out.startswith("Nothing to do: ")


def test_a_refused_month_stays_in_use_as_the_ledger_holds_it(months: Months) -> None:
    months.arrives("2020-01", classes=FOUR)  # the same thirty, and ten of a class that nobody knows
    months.arrives("2020-02")
    said = months.retrain(*LOOK)
    assert said.code == 1
    assert "2020-01: refused, champion version 1 stays: classes that the champion does not know: crack" in said.out
    assert "Images of this month that the ledger holds from before stay in use" in said.out
    january, february = months.ledger.months()[-2:]
    assert (january.outcome, february.outcome) == ("refused", "not needed")
    assert older_images(months) == 24 and february.numbers["regression_images"] == 6


def test_a_month_that_is_being_done_again_stays_in_use(months: Months, monkeypatch: pytest.MonkeyPatch) -> None:
    months.arrives("2020-02")
    assert months.retrain(*LOOK).code == 0
    months.arrives("2020-02", images=1, seed=1)
    months.arrives("2020-03")

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("search.retrain.month_run.check_data", interrupted)
        assert months.retrain(*LOOK, "month=2020-02").code == 130
    assert months.ledger.latest()["2020-02"].state == "running"
    assert months.retrain(*LOOK, "month=2020-03").code == 0
    assert older_images(months) == 24 + 18


def test_images_that_are_not_trained_on_any_more_are_told(months: Months) -> None:
    months.arrives("2020-02")
    assert months.retrain(*LOOK).code == 0
    rmtree(months.images / "2020-02")
    months.arrives("2020-03")
    said = months.retrain(*LOOK)
    assert said.code == 0
    note = "Not in the data any more, though the ledger holds them: 18 to train on (2020-02), 12 held out (2020-02)."
    assert f"  {note}\n" in said.out
    run = months.client.get_run(str(months.ledger.months()[-1].run_id))
    assert note in run.data.tags.values()
