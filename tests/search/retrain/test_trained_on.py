"""What a version was trained on is kept with it, whatever the order in which months were done."""

from __future__ import annotations

import pytest

from search.retrain.month import comparison
from search.retrain.month.record import Decision
from search.tracking.models import resolve_model
from tests.search.retrain.conftest import Months

TRAIN = ("retrain.depth=0", "retrain.epochs=1")


def plan_verdict(monkeypatch: pytest.MonkeyPatch, *, promote: bool) -> None:
    """The next comparison says this."""
    monkeypatch.setattr(comparison, "decide", lambda *_, **__: Decision(promote, "planted"))


def digests(months: Months, role: str, month: str) -> set[str]:
    """Of the ledger's images with this role of this month."""
    return {digest for digest, kept in months.ledger.roles().items() if kept == (role, month)}


def trained_on(months: Months, version: str) -> frozenset[str] | None:
    return resolve_model(f"models:/{months.model}/{version}", months.root).trained_on


def test_the_first_champion_names_its_images(months: Months) -> None:
    assert trained_on(months, "1") == digests(months, "training", "2020-01")


@pytest.mark.slow
def test_a_month_that_was_resumed_after_a_later_one_is_trained_on_both(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    """February is interrupted, March is done, February goes on: its challenger is trained on March's images too."""
    months.arrives("2020-02", images=6)
    months.arrives("2020-03", images=6)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("search.retrain.month_run.search_month", interrupted)
        assert months.retrain(*TRAIN, "month=2020-02").code == 130
    plan_verdict(monkeypatch, promote=False)
    assert months.retrain(*TRAIN, "month=2020-03").code == 0
    plan_verdict(monkeypatch, promote=True)
    resumed = months.retrain(*TRAIN, "month=2020-02")
    assert "continued after an interruption (done: check, look, depth)" in resumed.out
    version = months.aliases["champion"]
    march = digests(months, "training", "2020-03")
    assert march and version != "1"
    assert trained_on(months, version) == {
        digest for digest, (role, _) in months.ledger.roles().items() if role == "training"
    }
    # March comes again with two more images: the champion is not judged on those that it was trained on.
    months.arrives("2020-03", images=2, seed=1)
    again = months.retrain("retrain.depth=none")
    assert f"images of the month that it was not trained on ({len(march)} others it was)." in again.out


@pytest.mark.slow
def test_a_month_that_was_left_out_and_labelled_anew_was_not_trained_on(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    months.arrives("2020-02", images=6)
    months.arrives("2020-03", images=6)
    plan_verdict(monkeypatch, promote=False)
    with monkeypatch.context() as patched:
        patched.setattr(comparison, "_labels_mean_something", lambda *_: False)
        assert months.retrain(*TRAIN, "month=2020-02").code == 0
    plan_verdict(monkeypatch, promote=True)
    assert months.retrain(*TRAIN, "month=2020-03").code == 0
    version, february = months.aliases["champion"], digests(months, "training", "2020-02")
    assert version != "1" and february and not february & (trained_on(months, version) or set())
    folder = months.images / "2020-02"
    for one, other in (("left", "spare"), ("top", "left"), ("spare", "top")):
        (folder / one).rename(folder / other)
    said = months.retrain("retrain.depth=none")
    assert "2020-02: 18 images, its data changed since" in said.out
    assert f"Champion, version {version}: accuracy" in said.out
    assert " on 18 images of the month.\n" in said.out


def test_what_a_model_starts_from_counts_as_its_own(months: Months, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained on February alone, from weights that have seen January."""
    months.arrives("2020-02", images=6)
    plan_verdict(monkeypatch, promote=True)
    assert months.retrain(*TRAIN, "retrain.window=last-1", "retrain.replay=0").code == 0
    (row,) = months.ledger.months()[1:]
    assert trained_on(months, str(row.challenger)) == digests(months, "training", "2020-01") | digests(
        months, "training", "2020-02"
    )
    assert months.ledger.promotions()[-1].numbers["trained"] == len(digests(months, "training", "2020-02"))


def test_the_list_is_covered_by_the_digests_of_the_model(months: Months) -> None:
    (listed,) = months.model_folder("1").glob("artifacts/artifacts/*/trained_on.txt")
    whole = listed.read_bytes()
    try:
        listed.write_bytes(whole[33:])
        months.arrives("2020-02", images=6)
        said = months.retrain("retrain.depth=none")
        assert said.code == 2 and "trained_on.txt is missing or changed since it was written" in said.err
        assert months.aliases == {"champion": "1"} and len(months.ledger.months()) == 1
    finally:
        listed.write_bytes(whole)
