"""A search ends where the best trial leaves too few validation images wrong for any other to be shown to be better."""

from __future__ import annotations

from typing import Any

import pytest

from tests.search.study.scripted_study import Bench, ScriptedExecutor


def _all(value: float) -> Any:
    return lambda number, job: [0.5, 0.6, value]


def _bench(validated: int, **search: Any) -> Bench:
    bench = Bench(**{"trials": 8, "pruner": "none", "members": 2, **search})
    bench.validated = validated
    return bench


@pytest.mark.parametrize(
    ("value", "search", "trials"),
    [
        pytest.param(1.0, {}, 2, id="nothing wrong: as soon as two can answer together"),
        pytest.param(0.96, {}, 2, id="four of a hundred"),
        pytest.param(0.95, {}, 8, id="five of a hundred"),
        pytest.param(1.0, {"members": 3}, 3, id="three are to answer together"),
        pytest.param(1.0, {"stop": "never"}, 8, id="never"),
    ],
)
def test_when_it_ends(value: float, search: dict[str, Any], trials: int) -> None:
    bench = _bench(100, **search)
    bench.run(ScriptedExecutor(_all(value)))
    assert bench.slots() == list(range(trials))


def test_without_a_count_of_images_it_goes_on() -> None:
    bench = _bench(0)
    bench.run(ScriptedExecutor(_all(1.0)))
    assert len(bench.slots()) == 8


def test_it_says_why_and_goes_on_where_it_is_asked_to() -> None:
    bench = _bench(100)
    driver = bench.driver()
    driver.run(ScriptedExecutor(_all(0.97)))
    assert not driver.unfinished()
    assert driver.exhausted() == (
        "stop",
        "No trial could be shown to be better than trial 1, which has 3 of 100 validation images wrong",
        "search.stop=never goes on",
    )
    bench.run(ScriptedExecutor(_all(0.97)), stop="never")
    assert len(bench.slots()) == 8


def test_one_network_is_enough_where_it_answers_alone() -> None:
    bench = _bench(100, pruner="halving", members=1)
    bench.run(ScriptedExecutor(_all(1.0)))
    assert bench.slots() == [0]
