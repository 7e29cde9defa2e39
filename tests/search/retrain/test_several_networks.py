"""Months with a list of networks: the first champion is searched among all, later months take the champion's own."""

from __future__ import annotations

import pytest

from search.tracking.models import resolve_model
from tests.search.retrain.conftest import LEARNS, Months

pytestmark = pytest.mark.slow


def test_a_month_takes_the_champions_network_of_a_list(months: Months) -> None:
    months.arrives("2020-02", drift=True)
    said = months.retrain(
        "model.name=[lenet5_relu,lenet5]", "search.trials=2", "data.size=auto", "month=2020-02", *LEARNS
    )
    assert said.code == 0, said.err
    assert "Network: lenet5, the champion's, of lenet5_relu, lenet5." in said.out
    row = months.ledger.months()[-1]
    assert row.month == "2020-02" and row.challenger is not None
    assert resolve_model(f"models:/{months.model}/{row.challenger}", months.root).card.architecture == "lenet5"
    again = months.retrain("model.name=[lenet5_relu,lenet5]", "search.trials=2", *LEARNS)
    assert again.code == 0 and again.out.splitlines()[-1].startswith("Nothing to do: all 2 months are in the ledger")


def test_a_list_without_the_champions_network_is_refused(months: Months) -> None:
    months.arrives("2020-02")
    said = months.retrain(
        "model.name=[lenet5_relu,timm:test_resnet]", "search.trials=2", "model.weights=none", "data.size=[32,32]"
    )
    assert said.code == 2
    assert "model.name=['lenet5_relu', 'timm:test_resnet'] is not that of the champion" in said.err
    assert len(months.ledger.months()) == 1


@pytest.mark.long  # a month of several networks stands for it
def test_the_first_champion_is_searched_among_all(months: Months) -> None:
    several = Months(months.images, f"{months.model}-several", months.root)
    listed = ("model.name=[lenet5,lenet5_relu]", "search.trials=2")
    first = several.retrain(*listed)
    assert first.code == 0, first.err
    assert "Best macro F1 by network: lenet5 " in first.out
    champion = resolve_model(f"models:/{several.model}/1", several.root).card.architecture
    assert champion in ("lenet5", "lenet5_relu")
    assert f"Network: {champion}, the champion's, of lenet5, lenet5_relu." in first.out
    (row,) = several.ledger.months()
    assert row.outcome == "bootstrap"
    several.arrives("2020-02", drift=True)
    second = several.retrain(*listed, *LEARNS)
    assert second.code == 0, second.err
    assert len(rows := several.ledger.months()) == 2 and rows[0].outcome == "bootstrap"
