"""The driver with trials that wait at rungs: who goes on, and what an interruption may not change."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.executor.protocol import Job
from search.study.driver import SearchStudy
from search.study.opening import load_or_create
from search.study.record import StudyRecord, finished_trials
from search.trial.files import TrialFiles, network_file
from search.trial.result import TrialResult
from tests.search.study.scripted_study import EPOCHS, Bench, Run, ScriptedExecutor, curve

TRIALS = 12


def halving(**search: Any) -> Bench:
    return Bench(**{"pruner": "halving", "trials": TRIALS, **search})


def test_trials_wait_and_the_best_go_on() -> None:
    bench = halving()
    executor = bench.run()
    trials = finished_trials(bench.study)
    assert bench.slots() == list(range(TRIALS))
    epochs = [len(t.intermediate_values) for t in trials]
    assert epochs.count(EPOCHS) >= 1 and sum(epochs) < 2 * TRIALS
    assert len(executor.jobs) == TRIALS + len(bench.listener.went_on)
    assert {job.reported for job in executor.jobs} <= {0, 1, 2}
    best = max(trials, key=lambda t: max(t.intermediate_values.values()))
    assert best.state is TrialState.COMPLETE
    assert sorted(slot for slot, *_ in bench.listener.ended) == list(range(TRIALS))


def test_the_default_trial_never_waits_however_poor() -> None:
    def script(number: int, job: Job) -> list[float] | str:
        return [0.01, 0.02, 0.03] if job.slot == 0 else curve(job.params)

    bench = halving()
    executor = bench.run(ScriptedExecutor(script))
    default = next(t for t in finished_trials(bench.study) if t.user_attrs["slot"] == 0)
    assert default.state is TrialState.COMPLETE and len(default.intermediate_values) == EPOCHS
    assert [job.slot for job in executor.jobs].count(0) == 1
    others = [t for t in finished_trials(bench.study) if t.user_attrs["slot"]]
    assert any(t.state is TrialState.COMPLETE for t in others)


def test_every_trial_has_one_run_that_says_why_it_ended() -> None:
    bench = halving()
    bench.run()
    assert len(bench.tracker.runs) == TRIALS
    for trial in finished_trials(bench.study):
        run = bench.tracker.runs[trial.user_attrs["run_id"]]
        assert run.status == "FINISHED" and run.tags["status"] == trial.user_attrs["outcome"]
        if trial.state is TrialState.PRUNED:
            reason = trial.user_attrs["reason"]
            assert reason == run.tags["reason"]
            assert reason.startswith("halving rule at epoch ") or reason == "not promoted: no other trial runs any more"
        steps = [step for step, metrics in run.metrics if "epoch_seconds" in metrics]
        assert steps == sorted(trial.intermediate_values) == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_a_study_of_few_trials_has_a_complete_one(trials: int) -> None:
    bench = halving(trials=trials)
    bench.run()
    states = [t.state for t in finished_trials(bench.study)]
    assert len(states) == trials and states.count(TrialState.COMPLETE) == 1


def test_the_sampler_learns_from_trials_that_wait() -> None:
    """Those that waited have scores: with them TPE finds the good region that it cannot find among unknowns."""
    bench = halving(trials=40, startup_trials=8)
    bench.run()
    late = [t.params["lr_factor"] for t in finished_trials(bench.study)[25:]]
    assert sum(0.7 < factor < 6 for factor in late) > 0.6 * len(late)


@pytest.mark.parametrize("killed", [False, True], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("job", range(16))
def test_an_interrupted_study_ends_as_the_undisturbed_one(
    job: int, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = halving()
    jobs = undisturbed.run().jobs
    if job >= len(jobs):
        pytest.skip("the study has no so many jobs")
    bench = halving()
    epoch = jobs[job].reported  # the first that it trains
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if killed:
            patch.setattr(SearchStudy, "_abandon", lambda self, executor: None)
        bench.run(ScriptedExecutor(interrupt_in=(job, epoch)))
    bench.run()
    assert bench.params() == undisturbed.params()
    assert [t.values for t in finished_trials(bench.study)] == [t.values for t in finished_trials(undisturbed.study)]
    curves = [[t.intermediate_values for t in finished_trials(b.study)] for b in (bench, undisturbed)]
    assert curves[0] == curves[1]
    statuses = [run.status for run in bench.tracker.runs.values()]
    assert statuses.count("FINISHED") == TRIALS and set(statuses) <= {"FINISHED", "KILLED"}
    # A trial that had not waited yet is lost and asked again; one that had goes on.
    assert statuses.count("KILLED") == (jobs[job].reported == 0)


@dataclass
class Disturbance:
    """What a driver that is killed there leaves: a journal, and the runs that the tracker has at that moment."""

    journal: bytes
    runs: dict[str, Run]


def every_disturbance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, list[Disturbance]]:
    """An undisturbed study, and all that a kill could have left of it.

    Those are the journal and the runs after each call of the tracker and after each record, written alone or with
    others: of several written together a kill may leave the first ones only.
    """
    left: list[Disturbance] = []
    bench, path = halving(), folder / "whole.journal"

    def note(journal: bytes) -> None:
        left.append(Disturbance(journal, deepcopy(bench.tracker.runs)))

    def fsync(_: int) -> None:
        journal = path.read_bytes()
        before = len(left[-1].journal) if left else 0
        ends = [end for end, byte in enumerate(journal, start=1) if byte == ord("\n") and end > before]
        for end in ends:
            note(journal[:end])

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **options: Any) -> Any:
            answer = call(*args, **options)
            note(path.read_bytes())
            return answer

        return noting

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        bench.study = load_or_create(path, "s", {}, fresh=False)[0]
        for name in ("start_trial", "log", "finish"):
            patch.setattr(bench.tracker, name, noted(getattr(bench.tracker, name)))
        bench.run()
    return bench, left


@pytest.fixture(scope="module")
def killed_anywhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, list[Disturbance]]:
    with pytest.MonkeyPatch.context() as patch:
        return every_disturbance(tmp_path_factory.mktemp("whole"), patch)


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1))
def test_a_study_whose_driver_was_killed_anywhere_ends_as_the_undisturbed_one(
    share: float, killed_anywhere: tuple[Bench, list[Disturbance]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed, left = killed_anywhere
    found = left[round(share * (len(left) - 1))]
    path = tmp_path_factory.mktemp("killed") / "s.journal"
    path.write_bytes(found.journal)
    bench = halving()
    bench.study = load_or_create(path, "s", {}, fresh=False)[0]
    bench.tracker.runs = deepcopy(found.runs)
    bench.run()
    assert bench.params() == undisturbed.params()
    ends = [
        [(t.state, t.values, t.intermediate_values) for t in finished_trials(b.study)] for b in (bench, undisturbed)
    ]
    assert ends[0] == ends[1] and all(t.state.is_finished() for t in bench.study.trials)
    statuses = [run.status for run in bench.tracker.runs.values()]
    assert statuses.count("FINISHED") == TRIALS and set(statuses) <= {"FINISHED", "KILLED"}
    # An epoch is recorded before it is logged: a kill right between them leaves it out of the run.
    assert len(lacking(bench)) <= (b'"intermediate_value"' in found.journal.splitlines()[-1])


def lacking(bench: Bench) -> list[tuple[str, int]]:
    """Epochs of finished trials that their runs do not have once."""
    found = []
    for trial in finished_trials(bench.study):
        run_id = trial.user_attrs["run_id"]
        logged = [step for step, metrics in bench.tracker.runs[run_id].metrics if "epoch_seconds" in metrics]
        found += [(run_id, step) for step in {*trial.intermediate_values, *logged} if logged.count(step) != 1]
    return found


def test_a_trial_that_waited_and_was_killed_before_its_result_has_every_epoch_in_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = SearchStudy._finish

    def finish(self: SearchStudy, slot: int, result: TrialResult) -> None:
        if self._active[slot].waited:
            raise KeyboardInterrupt
        real(self, slot, result)

    bench = halving()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SearchStudy, "_abandon", lambda self, executor: None)
        patch.setattr(SearchStudy, "_finish", finish)
        bench.run()
    bench.run()
    assert bench.slots() == list(range(TRIALS)) and lacking(bench) == []


def test_a_stop_keeps_what_waits_for_the_next_call() -> None:
    bench = halving()
    executor = ScriptedExecutor()
    bench.driver().run(executor, stopping=lambda: len(executor.jobs) == 5)
    waiting = [t for t in bench.study.trials if t.state is TrialState.RUNNING]
    assert waiting and all(t.user_attrs["waiting"] for t in waiting)
    assert {bench.tracker.runs[t.user_attrs["run_id"]].status for t in waiting} == {"KILLED"}
    bench.run()
    undisturbed = halving()
    undisturbed.run()
    assert bench.params() == undisturbed.params()


def test_a_trial_that_dies_after_waiting_is_tried_again_from_its_start() -> None:
    def script(number: int, job: Job) -> list[float] | str:
        return (
            "crash" if job.reported == 1 and not crashed.append(job.slot) and len(crashed) == 1 else curve(job.params)
        )

    crashed: list[int] = []
    bench = halving()
    executor = bench.run(ScriptedExecutor(script))
    again = [job for job in executor.jobs if job.slot == crashed[0]]
    assert [job.reported for job in again[:3]] == [0, 1, 0]
    assert bench.slots() == list(range(TRIALS))


def test_where_the_best_diverges_on_its_last_stretch_another_one_ends() -> None:
    def script(number: int, job: Job) -> list[float] | str:
        if job.slot == 0:  # which runs in full, and must not be the best
            return [0.01, 0.02, 0.03]
        return "diverge" if job.reported and not lost.append(job.slot) and len(lost) == 1 else curve(job.params)

    lost: list[int] = []
    bench = halving()
    bench.run(ScriptedExecutor(script))
    outcomes = {t.user_attrs["slot"]: t.user_attrs["outcome"] for t in finished_trials(bench.study)}
    del outcomes[0]
    assert outcomes[lost[0]] == "diverged" and "complete" in outcomes.values()


def test_runs_of_waiting_trials_are_open_only_while_a_driver_runs_them() -> None:
    bench = halving()
    executor = ScriptedExecutor()
    bench.driver().run(executor, stopping=lambda: len(executor.jobs) == 5)
    assert bench.driver().repair() == 0
    assert "RUNNING" not in {run.status for run in bench.tracker.runs.values()}


def test_three_at_a_time_fill_the_same_slots() -> None:
    bench = halving()
    executor = bench.run(ScriptedExecutor(capacity=3))
    assert bench.slots() == list(range(TRIALS))
    assert {job.slot for job in executor.jobs} == set(range(TRIALS))


def test_more_trials_continue_a_finished_study() -> None:
    bench = halving(trials=5)
    bench.run()
    bench.run(trials=TRIALS)
    assert bench.slots() == list(range(TRIALS))


@pytest.mark.parametrize("capacity", [1, 2])
def test_in_the_end_only_the_networks_of_the_best_trials_are_kept(tmp_path: Path, capacity: int) -> None:
    bench, folder = halving(members=2), tmp_path / "folder"
    driver = bench.driver(trial_files=folder)

    def script(number: int, job: Job) -> list[float]:
        assert job.checkpoint == folder / f"slot-{job.slot}.pt"
        job.checkpoint.parent.mkdir(exist_ok=True)
        job.checkpoint.write_bytes(b"state")
        network_file(job.checkpoint).write_bytes(b"network")
        return curve(job.params)

    driver.run(ScriptedExecutor(script, capacity=capacity))
    best = StudyRecord(bench.study).members(2)
    assert len(best) == 2
    assert {file.name for file in folder.iterdir()} == {f"slot-{trial.slot}.network.pt" for trial in best}
    TrialFiles(folder).close()
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_the_driver_has_not_been_told_of_stays(tmp_path: Path) -> None:
    for slot in range(4):
        network_file(tmp_path / f"slot-{slot}.pt").touch()
    TrialFiles(tmp_path).leave(1, best=[0], before=[2])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["slot-0.network.pt", "slot-3.network.pt"]


def test_each_attempt_has_a_file_of_its_own_and_takes_over_what_the_one_before_it_left(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    first, second, third = (files.checkpoint(3, attempt) for attempt in range(3))
    assert first is not None and second is not None and third is not None
    assert [path.name for path in (first, second, third)] == ["slot-3.pt", "slot-3.attempt-1.pt", "slot-3.attempt-2.pt"]
    first.write_text("first")
    assert files.take_over(3, 1) == second and second.read_text() == "first" and not first.exists()
    first.write_text("written by a worker that cannot be reached")
    assert files.take_over(3, 2) == third and third.read_text() == "first"
    network_file(third).write_text("network")
    files.settle(3, 2)
    files.leave(3, best=[3], before=[])
    assert [path.name for path in tmp_path.iterdir()] == ["slot-3.network.pt"]
    assert network_file(first).read_text() == "network"
    assert files.take_over(4, 2) == tmp_path / "slot-4.attempt-2.pt"  # nothing to take over


def test_a_study_that_keeps_no_files_has_none_to_take_over() -> None:
    files = TrialFiles(None)
    files.settle(0, 1)
    assert files.take_over(0, 1) is None
