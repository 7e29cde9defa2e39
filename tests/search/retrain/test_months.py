"""Months through `python -m search.retrain`: the first champion, one month after the other, and what is done again."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
from PIL import Image

from tests.search.retrain.conftest import LEARNS, Months, Outcome

STEPS = ["check", "look", "depth", "search", "compare", "report"]


def test_the_first_champion(first: tuple[Months, Outcome]) -> None:
    months, said = first
    assert said.code == 0, said.err
    assert "No champion yet: searching the first one on 1 months, 2020-01 to 2020-01." in said.out
    assert months.aliases == {"champion": "1"}
    (row,), (promotion,) = months.ledger.months(), months.ledger.promotions()
    assert (row.month, row.state, row.outcome, row.champion_before, row.champion_after) == (
        "2020-01", "done", "bootstrap", None, "1",
    )  # fmt: skip
    assert (promotion.kind, promotion.from_version, promotion.to_version, promotion.state) == (
        "bootstrap", None, "1", "done",
    )  # fmt: skip
    roles = [role for role, _ in months.ledger.roles().values()]
    assert roles.count("regression") == promotion.numbers["regression_images"] == 6
    assert roles.count("training") == promotion.numbers["trained"] == 24
    run = months.client.get_run(str(row.run_id))
    assert run.info.status == "FINISHED"
    assert run.data.tags["outcome"] == "bootstrap"
    assert run.data.tags["decision"] == promotion.reason == row.reason


def test_a_month_promotes_and_the_same_again_does_nothing(months: Months) -> None:
    months.arrives("2020-02", drift=True)
    said = months.retrain(*LEARNS)
    assert said.code == 0, said.err
    assert "Champion: version 2; previous: version 1." in said.out
    assert months.aliases == {"champion": "2", "previous": "1"}
    row, promotion = months.ledger.months()[-1], months.ledger.promotions()[-1]
    assert (row.month, row.state, row.outcome, row.why) == ("2020-02", "done", "promoted", "new")
    assert (row.champion_before, row.champion_after, row.challenger) == ("1", "2", "2")
    assert list(months.ledger.steps(row)) == STEPS
    assert (promotion.kind, promotion.month, promotion.from_version, promotion.to_version, promotion.state) == (
        "promotion", "2020-02", "1", "2", "done",
    )  # fmt: skip
    before = f"of 12 new images right, the champion {12 * row.numbers['accuracy_before']:.0f}"
    assert promotion.reason == row.reason and before in promotion.reason
    assert row.numbers["accuracy_after"] > row.numbers["accuracy_before"]
    assert row.numbers.items() <= promotion.numbers.items()

    # The history in MLflow: the same numbers, the same words.
    run = months.client.get_run(str(row.run_id))
    assert run.info.status == "FINISHED"
    assert {name: run.data.metrics[name] for name in ("accuracy_before", "accuracy_after", "regression_after")} == {
        name: row.numbers[name] for name in ("accuracy_before", "accuracy_after", "regression_after")
    }
    assert run.data.tags["decision"] == row.reason and run.data.tags["champion_before"] == "1"
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {"month.html", "month.json", "champion_baseline.npz"} <= {path.name for path in artifacts.iterdir()}
    assert json.loads((artifacts / "month.json").read_text())["outcome"] == "promoted"
    version = months.client.get_model_version_by_alias(months.model, "champion")
    assert version.run_id == row.run_id

    # Nobody trained on what is held out, and the regression set is what it was.
    trained = [digest for digest, (role, _) in months.ledger.roles().items() if role == "training"]
    held_out = [m for role, m in months.ledger.roles().values() if role == "held_out"]
    assert promotion.numbers["trained"] == len(trained) == 24 + 18
    assert held_out == ["2020-02"] * row.numbers["newest_images"]
    assert [m for role, m in months.ledger.roles().values() if role == "regression"] == ["2020-01"] * 6

    runs, before = len(months.runs()), months.ledger.months()
    again = months.retrain(*LEARNS)
    assert again.code == 0
    assert again.out.startswith("Nothing to do: all 2 months are in the ledger, the last: 2020-02 was done on ")
    assert again.out.endswith(": promoted. Champion: version 2.\n")
    assert "promoted" in months.retrain(*LEARNS, "month=2020-02").out
    assert (len(months.runs()), months.ledger.months()) == (runs, before)
    assert not (months.root / "retraining" / months.model).exists() or not any(
        (months.root / "retraining" / months.model).iterdir()
    )

    # Late images: the champion is judged on them and on what was held out, not on what it was trained on.
    for file in sorted((months.images / "2020-02" / "top").iterdir())[:3]:
        Image.open(file).rotate(180).save(file.with_name(f"late {file.name}"))
    late = months.retrain("retrain.depth=auto", "retrain.epochs=1")
    assert late.code == 0, late.err
    assert " on 15 images of the month that it was not trained on (18 others it was)." in late.out
    trainable = [d for d, (role, _) in months.ledger.roles().items() if role == "training" and d not in trained]
    look, depth = (months.ledger.steps(months.ledger.months()[-1])[step][0] for step in ("look", "depth"))
    assert look["images"] == 15
    if len(trainable) < 2:
        assert "that the champion was not trained on already" in depth["reason"]
    else:
        assert depth["decision"]["images"] == len(trainable) <= 3


def test_a_month_is_seen_at_the_champions_size(months: Months) -> None:
    months.arrives("2020-02", side=120)
    said = months.retrain("data.size=auto", "retrain.depth=none")
    assert said.code == 0, said.err
    assert said.out.startswith("Size: 24 x 24, data.fit=stretch; those of the champion, version 1.\n")
    first, second = months.ledger.months()
    assert first.settings_digest != second.settings_digest  # retrain.depth
    run = months.client.get_run(str(second.run_id))
    assert (run.data.params["data.size"], run.data.params["data.fit"]) == ("[24, 24]", "stretch")
    again = months.retrain("retrain.depth=none", "month=2020-02")
    assert again.out.startswith("Nothing to do: 2020-02 was done on"), again.out  # the same settings


@pytest.mark.slow
def test_a_first_champion_whose_size_is_open_is_followed_by_months(months: Months) -> None:
    other = Months(months.images, f"{months.model}-open", months.root)
    first = other.retrain("data.size=auto", "retrain.depth=none")
    assert first.code == 0, first.err
    other.arrives("2020-02")
    second = other.retrain("data.size=auto", "retrain.depth=none")
    assert second.out.startswith("Size: 96 x 96, data.fit=stretch; those of the champion"), second.err
    again = other.retrain("data.size=auto", "retrain.depth=none")
    assert again.out.splitlines()[-1].startswith("Nothing to do: all 2 months are in the ledger"), again.err


def test_a_month_whose_data_or_settings_changed_is_done_again_and_says_why(months: Months) -> None:
    look = ("retrain.depth=none",)
    months.arrives("2020-02")
    assert months.retrain(*look).code == 0
    later = next((months.images / "2020-02" / "top").iterdir())
    Image.open(later).rotate(90).save(later.with_name("later.png"))
    said = months.retrain(*look)
    assert said.code == 0
    why = said.out.splitlines()[0].removeprefix("2020-02: 31 images, ").removesuffix(".")
    assert why.startswith("its data changed since 20") and why.endswith("(30 images then, 31 now)")
    row = months.ledger.months()[-1]
    assert (row.why, row.outcome, row.images) == (why, "not needed", 31)
    assert months.client.get_run(str(row.run_id)).data.tags["why"] == why

    # Other settings are no reason to do old months again, unless one is asked for.
    other = (*look, "retrain.margin=0.1")
    assert "Nothing to do" in months.retrain(*other).out
    assert "settings changed since" in months.retrain(*other, "month=2020-02").out
    assert months.aliases == {"champion": "1"} and len(months.ledger.promotions()) == 1
    # Images keep their role: those held out the first time are held out still.
    assert [m for role, m in months.ledger.roles().values() if role == "held_out"].count("2020-02") in (12, 13)


def test_months_come_oldest_first_and_images_keep_their_role(months: Months) -> None:
    months.arrives("2020-03")
    months.arrives("2020-02")
    copytree(months.images / "2020-02" / "top", months.images / "2020-03" / "top", dirs_exist_ok=True)  # resent
    said = months.retrain("retrain.depth=none")
    assert said.code == 0, said.err
    assert [line[:7] for line in said.out.splitlines() if " images, new" in line] == ["2020-02", "2020-03"]
    assert [row.month for row in months.ledger.months()] == ["2020-01", "2020-02", "2020-03"]


def test_a_vanished_class_and_another_mix_are_named(months: Months) -> None:
    months.arrives("2020-02", classes=("left",), images=40)
    said = months.retrain("retrain.depth=none")
    assert said.code == 0
    assert "Classes without an image this month: middle, top." in said.out
    assert "The mix of classes is far from that of older months (chi-square, p = " in said.out
    run = months.client.get_run(str(months.ledger.months()[-1].run_id))
    assert "Classes without an image this month: middle, top." in run.data.tags.values()
    assert months.aliases == {"champion": "1"}


@pytest.mark.slow
def test_a_class_that_vanished_is_not_forgotten(months: Months) -> None:
    """Trained on two classes of other stripes alone, the challenger loses the third on the regression set."""
    months.arrives("2020-02", classes=("left", "top"), drift=True)
    said = months.retrain("retrain.window=last-1", "retrain.replay=0", *LEARNS)
    row = months.ledger.months()[-1]
    assert (said.code, row.outcome) == (0, "kept")
    assert "of the regression set" in str(row.reason)
    assert months.aliases == {"champion": "1"} and row.challenger == "2"


def test_two_runs_at_once_are_kept_apart(months: Months) -> None:
    from search.retrain.driver import owned_model
    from search.settings.compose import compose_settings

    months.arrives("2020-02")
    with owned_model(compose_settings(list(months.arguments))):
        for verb in ((), ("rollback", "reason=it misses scratches")):
            said = months.retrain(*verb)
            assert said.code == 2
            assert said.err.startswith("retrain: retraining of model 'sheets' is being run by process ")
            assert said.err.endswith("; wait for it and start again\n") and said.err.count("\n") == 1
    assert [row.month for row in months.ledger.months()] == ["2020-01"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["month=2020-13"], "month must be YYYY-MM with MM in 01..12, got '2020-13'"),
        (["month=2021-01"], "month=2021-01 has no images; months in the data: 2020-01 to 2020-01"),
        (["month=2020-01", "month=2020-02"], "month must be given once, got it again as 'month=2020-02'"),
        (["retrain.depth=4"], "retrain.depth must be auto, none, head, search or in 0..3 for lenet5, got 4"),
        (["retrain.window=last-0"], "retrain.window"),
        (["retrain.margin=0"], "retrain.margin"),
        (["retrain.regression=some"], "retrain.regression must be one of complete, shrink, got 'some'"),
        (["reason=because"], "reason= is for python -m search.retrain rollback"),
        (["data.test=random"], "data.test=random has no effect on retraining"),
        (["search.study=mine"], "search.study=mine has no effect on retraining"),
        (["retrain.start_months=2"], "retrain.start_months=2, and the data hold 1 months"),
        (["data.size=[28,28]"], "data.size=[28, 28] is not that of the champion, version 1 of model sheets: [24, 24]"),
    ],
    ids=lambda one: "+".join(one) if isinstance(one, list) else "",
)
def test_bad_input_is_one_line_and_changes_nothing(months: Months, arguments: list[str], said: str) -> None:
    if arguments == ["data.size=[28,28]"]:
        months.arrives("2020-02")  # or there is nothing to do
    ledger, runs = months.ledger.months(), len(months.runs())
    result = months.retrain(*arguments)
    assert result.code == 2
    assert said in result.err and result.err.count("\n") == 1
    assert (months.ledger.months(), len(months.runs())) == (ledger, runs)
    assert months.aliases == {"champion": "1"}
