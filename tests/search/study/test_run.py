"""What a study's phases show while they last."""

from __future__ import annotations

import io
from typing import Any, cast

from search.command_line.interrupts import InterruptFlag
from search.command_line.steady_console import SteadyConsole
from search.study.run import Clock, StudyRun
from search.trial.files import TrialFiles


def test_a_phase_says_how_far_it_is() -> None:
    console, nothing = SteadyConsole(file=io.StringIO()), cast(Any, None)
    run = StudyRun(nothing, nothing, nothing, "parent", console, InterruptFlag(), Clock(), TrialFiles(None))
    run.now("nothing lasts")
    assert console.doing == ""
    with run.phase("winner", "Refitting"):
        assert console.doing == "Refitting"
        run.now("Refitting: 1 of 3")
        assert console.doing == "Refitting: 1 of 3"
        with run.phase("figures", "Drawing"):
            run.now("Drawing: 1 of 2")
            assert console.doing == "Drawing: 1 of 2"
        assert console.doing == "Refitting: 1 of 3"
    assert console.doing == ""
    with run.phase("trials"):
        run.now("unseen")
    assert console.doing == "" and set(run.clock.seconds) == {"winner", "figures", "trials"}
