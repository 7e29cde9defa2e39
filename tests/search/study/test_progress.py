"""What is said while trials run: in words, and time only when it can be told."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from search.command_line.steady_console import SteadyConsole
from search.study import progress
from search.study.progress import StudyProgress, spoken_params
from search.trial.result import EpochReport, TrialParams

PARAMS = TrialParams("adam", 1.0, 4)


class _Clock:
    """Seconds that a test lets go by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def _progress(console: Console, *, trials: int = 10, afterwards: float = 0) -> StudyProgress:
    return StudyProgress(
        console, trials=trials, finished=0, epochs=4, expected=4 * trials, afterwards=afterwards,
        metric="macro_f1", best=None,
    )  # fmt: skip


def _report(step: int) -> EpochReport:
    return EpochReport(step, 0, step, 0.5, 0.7, {}, 1.0)


def test_a_trial_is_a_sentence() -> None:
    out = io.StringIO()
    shown = _progress(Console(file=out, width=200))
    shown.trial_started(3, PARAMS, 0)
    shown.epoch(3, _report(0))
    shown.trial_ended(3, "pruned", 0.8125, (0.9412, 1))
    assert out.getvalue() == (
        "trial   3  adam, learning rate 0.001, freeze depth 4: stopped early after 1 epoch, macro F1 0.8125; "
        "best 0.9412 (trial 1)\n"
    )
    beta = TrialParams("nag", 2.0, 0, fostering_beta=10.0, network="lenet5")
    assert spoken_params(beta) == "lenet5, nag, learning rate 0.02, freeze depth 0, fostering beta 10"


def test_what_is_right_so_far_and_what_was_gained() -> None:
    out, ended = io.StringIO(), []
    shown = StudyProgress(
        Console(file=out, width=200), trials=4, finished=0, epochs=1, expected=4, metric="macro_f1", best=None,
        on_trial=lambda: ended.append(1),
    )  # fmt: skip
    for slot, value in ((0, 0.9), (1, 0.95)):
        shown.trial_started(slot, PARAMS, 0)
        shown.epoch(slot, EpochReport(0, 0, 0, value, 0.7, {"val_accuracy": value}, 1.0))
        shown.trial_ended(slot, "complete", value, (value, slot))
    score, first, second = out.getvalue().splitlines()
    said = "First score: 90 % of the validation images right, after 1 epoch of trial 0 "
    assert score == f"{said}(adam, learning rate 0.001, freeze depth 4)."
    assert first.partition("; about")[0].endswith(
        "complete after 1 epoch, macro F1 0.9000, 90 % of the validation images right; best 0.9000 (trial 0)"
    )
    assert "; best 0.9500 (trial 1, +0.0500 to trial 0)" in second
    assert len(ended) == 2


def test_what_goes_on_is_named_where_there_is_no_terminal() -> None:
    console = SteadyConsole(file=io.StringIO())
    shown = _progress(console)
    with shown.shown():
        shown.trial_started(0, PARAMS, 0)
        shown.epoch(0, _report(0))
        assert console.doing == "0 of 10 trials done; trial 0 in epoch 2 of 4"
    assert console.doing == ""


def test_time_left_goes_by_what_trials_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of other freeze depths take other times; that of the first is known, of those drawn their mean."""
    clock = _Clock(monkeypatch)
    costs = {8: 0.1, 4: 1.0, 2: 2.0}
    console = SteadyConsole(file=io.StringIO())
    shown = StudyProgress(
        console, trials=5, finished=0, epochs=4, expected=4 * (0.1 + 1 + 2 + 2 * 1.0), afterwards=4 * 3.1, in_full=3,
        metric="macro_f1", best=None, cost=lambda params: costs[params.freeze_depth], drawn_cost=1.0,
    )  # fmt: skip
    whole = 10 * 4 * (0.1 + 1 + 2 + 2 + 0.1 + 3.1)  # ten seconds a unit of cost; the drawn ones are at 2 and 8
    with shown.shown():
        for slot, depth in enumerate((8, 4, 2, 2, 8)):
            shown.trial_started(slot, TrialParams("adam", 1.0, depth), 0)
            for step in range(4):
                clock.now += 10 * costs[depth]
                shown.epoch(slot, _report(step))
                if found := re.search(r"about (\d+) to (\d+) (s|min) left", console.doing):
                    unit = 60 if found[3] == "min" else 1
                    assert unit * (int(found[1]) - 0.5) <= whole - clock.now <= unit * (int(found[2]) + 0.5)
                else:
                    assert slot < 2, console.doing
            shown.trial_ended(slot, "complete", 0.5, (0.5, 0))


@pytest.mark.parametrize(
    "seconds", [[5.0] * 10, [9.0, 3.0] * 5, [6, 6, 6, 4, 4, 4, 4, 4, 4, 4], [3, 3, 4, 4, 4, 4, 5, 4, 4, 3]]
)
def test_the_time_left_is_right_once_it_is_told(seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of these seconds an epoch, then as much as five more for the winner's networks: a log, replayed."""
    clock, out = _Clock(monkeypatch), io.StringIO()
    shown = _progress(Console(file=out, width=200), afterwards=20)
    ends = []
    for slot, epoch in enumerate(seconds):
        shown.trial_started(slot, PARAMS, 0)
        for step in range(4):
            clock.now += epoch
            shown.epoch(slot, _report(step))
        ends.append(clock.now)
        shown.trial_ended(slot, "complete", 0.5, (0.5, 0))
    whole = clock.now + 20 * sum(seconds) / len(seconds)
    lines = out.getvalue().splitlines()
    assert "left" not in lines[0]  # a tenth of the search
    told = 0
    for line, now in zip(lines, ends, strict=True):
        if found := re.search(r"about ([0-9.]+) to ([0-9.]+) (s|min|h) left", line):
            told += 1
            unit = {"s": 1, "min": 60, "h": 3600}[found[3]]
            low, high = (unit * (float(found[part]) + off) for part, off in ((1, -0.5), (2, 0.5)))  # as it is rounded
            assert low / 1.1 <= whole - now <= high * 1.1, line
            assert float(found[2]) <= 3 * float(found[1])
    assert told >= 7
