"""What a study may cost: the budget's grammar, what counts, how a study ends when it is spent, and on a restart."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lightning_modules.errors import InputError
from search.settings.budget import parse_budget
from search.study.record import finished_trials
from search.study.spending import Spending
from search.study.storage import open_storage
from tests.search.study.scripted_study import EPOCHS, Bench, ScriptedExecutor, curve


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("600s", 600, "s"), ("90min", 5400, "s"), ("1.5h", 5400, "s"), ("40epochs", 40, "epochs"),
        ("0.5epochs", 0.5, "epochs"), ("100trials", 100, "trials"),
    ],
)  # fmt: skip
def test_a_number_with_its_unit(text: str, amount: float, unit: str) -> None:
    budget = parse_budget(text)
    assert (budget.amount, budget.unit, budget.text) == (amount, unit, text)


@pytest.mark.parametrize("text", ["", "600", "s", "600 s", "1e3s", "-1s", "0epochs", "5days", "nans", "infs", "٣s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"search\.budget must be a number above 0 with its unit.*got"):
        parse_budget(text)


@pytest.mark.parametrize("budget", ["3trials", "9epochs", "6.1epochs"])
def test_a_study_stops_asking_when_its_budget_is_spent(budget: str) -> None:
    """Trials of three epochs; running ones end, so a budget is overshot by less than a trial."""
    bench = Bench(pruner="none", budget=budget)
    bench.run()
    assert bench.slots() == [0, 1, 2]
    assert bench.run().jobs == []  # a restart knows what was spent
    bench.run(budget="5trials")
    assert bench.slots() == list(range(5))
    whole = Bench(pruner="none")
    whole.run()
    assert bench.params() == whole.params()[:5]


def test_a_budget_larger_than_the_study_changes_nothing() -> None:
    bench, whole = Bench(budget="1000epochs"), Bench()
    bench.run()
    whole.run()
    assert bench.params() == whole.params() and len(bench.slots()) == 8


def test_attempts_that_died_of_an_error_are_spent_and_interrupted_ones_are_not() -> None:
    bench = Bench(pruner="none", budget="4trials")
    bench.run(ScriptedExecutor(lambda n, job: "crash" if n == 1 else curve(job.params)))
    assert bench.slots() == [0, 1, 2]
    for job in range(3):
        bench, undisturbed = Bench(budget="9epochs"), Bench(budget="9epochs")
        with pytest.raises(KeyboardInterrupt):
            bench.run(ScriptedExecutor(interrupt_in=(job, 1)))
        bench.run()
        undisturbed.run()
        assert bench.params() == undisturbed.params()


def test_a_slot_whose_attempts_fail_is_not_asked_again_beyond_the_budget() -> None:
    bench = Bench(pruner="none", budget="2trials", max_attempts=3)
    executor = bench.run(ScriptedExecutor(lambda n, job: "crash" if job.slot == 1 else curve(job.params)))
    assert [job.slot for job in executor.jobs] == [0, 1]
    assert bench.slots() == [0]


def test_those_that_wait_are_brought_to_an_end_as_after_the_last_trial(tmp_path: Path) -> None:
    bench = Bench(pruner="halving", budget="4trials")
    bench.run()
    states = [t.state for t in finished_trials(bench.study)]
    assert len(states) == 4 and TrialState.COMPLETE in states and TrialState.PRUNED in states
    alone = Bench(pruner="halving", trials=4)
    alone.run()
    assert bench.params() == alone.params()
    assert states == [t.state for t in finished_trials(alone.study)]


def test_seconds_are_kept_and_go_on_in_the_next_call() -> None:
    study = optuna.create_study()
    now = [100.0]
    spending = Spending(study, parse_budget("60s"), lambda _: 1.0, clock=lambda: now[0])
    now[0] += 500  # of reading images
    assert not spending.exhausted and spending.seconds == 0
    spending.begin()
    now[0] += 9
    spending.note()
    assert "seconds_spent" not in study.user_attrs
    now[0] += 2
    spending.note()
    assert study.user_attrs["seconds_spent"] == pytest.approx(11)
    now[0] += 40
    spending.note(now=True)
    again = Spending(study, parse_budget("60s"), lambda _: 1.0, clock=lambda: now[0])
    again.begin()
    assert again.seconds == pytest.approx(51) and not again.exhausted
    now[0] += 9
    assert again.exhausted


def test_an_epoch_costs_what_its_depth_costs() -> None:
    bench = Bench(pruner="none")
    bench.run()
    expected = sum(EPOCHS / (1 + t.params["freeze_depth"]) for t in finished_trials(bench.study))
    assert (
        Spending(
            bench.study, parse_budget(f"{expected + 0.01:.6f}epochs"), lambda p: 1 / (1 + p.freeze_depth)
        ).exhausted
        is False
    )
    assert (
        Spending(
            bench.study, parse_budget(f"{expected - 0.01:.6f}epochs"), lambda p: 1 / (1 + p.freeze_depth)
        ).exhausted
        is True
    )


@pytest.fixture
def small(tiny: tuple[str, ...]) -> tuple[str, ...]:
    return (*tiny, "model=lenet5", "search.pruner=none", "search.trials=6")


@pytest.mark.slow
@pytest.mark.long  # two searches
def test_on_the_command_line_and_on_a_restart(
    small: tuple[str, ...], run_search_warm: Callable[..., Any], tracking_root: Path
) -> None:
    def finished(budget: str) -> tuple[str, list[dict[str, Any]]]:
        outcome = run_search_warm(*small, "search.study=budget", f"search.budget={budget}")
        assert outcome.code == 0, outcome.err
        assert "Winner" in outcome.out
        storage = open_storage(tracking_root / "studies" / "budget.journal")
        found = finished_trials(optuna.load_study(study_name="budget", storage=storage))
        line = f"search.budget={budget} is spent: {len(found)} of 6 trials finished; a larger one continues the study."
        assert line in outcome.out
        return outcome.out, [t.params for t in found]

    _, two = finished("4epochs")  # of two epochs each
    _, three = finished("6epochs")
    out, again = finished("0.001s")  # less than the trials of the calls before took together
    assert len(two) == 2 and len(three) == 3 and three[:2] == two and again == three
    assert not re.search("^trial +[0-9]", out, re.MULTILINE)


@pytest.mark.slow
def test_a_trial_over_its_time_is_stopped_with_what_it_has(
    small: tuple[str, ...], run_search_warm: Callable[..., Any], tracking_root: Path
) -> None:
    arguments = (*small, "search.study=overtime", "search.trials=2", "trainer.epochs=10000")
    outcome = run_search_warm(*arguments, "search.trial_seconds=1")
    assert outcome.code == 2
    assert "no trial ran its full length, so there is no winner; raise search.trials or search.trial_seconds" in (
        outcome.err
    )
    found = re.findall(r"trial +([0-9]+) .*: over its time after ([0-9]+) epochs?, macro F1 [0-9.]+", outcome.out)
    assert [slot for slot, _ in found] == ["0", "1"] and all(0 < int(epochs) < 10000 for _, epochs in found)
    storage = open_storage(tracking_root / "studies" / "overtime.journal")
    trials = finished_trials(optuna.load_study(study_name="overtime", storage=storage))
    assert [t.state for t in trials] == [TrialState.PRUNED] * 2
    assert all(t.user_attrs["reason"].startswith("over search.trial_seconds=1 in epoch") for t in trials)
    assert all(t.user_attrs["seconds"] < 10 for t in trials)


@pytest.mark.slow
def test_a_trial_without_an_epoch_in_its_time_fails_with_the_reason(
    small: tuple[str, ...], run_search_warm: Callable[..., Any]
) -> None:
    outcome = run_search_warm(*small, "search.study=no-time", "search.trial_seconds=0.0001", "search.max_attempts=1")
    assert outcome.code == 1
    assert "three trials in a row failed 1 times each" in outcome.err
    assert "TrialOvertimeError: no epoch ended within search.trial_seconds=0.0001" in outcome.err
