"""The driver, with an executor and a tracker that live in memory: slots, retries, pruning, interruptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lightning_modules.errors import InputError
from search.errors import StudyStalledError
from search.settings.parsing import parse
from search.settings.plain import to_plain
from search.study.driver import SearchStudy
from search.study.opening import load_or_create
from search.study.record import finished_trials
from search.study.sampler import slot_seed
from search.trial.result import TrialParams
from tests.search.study.scripted_study import CRASH, DEFAULT, EPOCHS, Bench, ScriptedExecutor, curve, settings_of


def test_every_slot_is_filled_once_and_trial_0_is_the_default() -> None:
    bench = Bench()
    executor = bench.run()
    assert [job.slot for job in executor.jobs] == bench.slots() == list(range(8))
    assert executor.jobs[0].params == DEFAULT
    assert [job.seed for job in executor.jobs] == [slot_seed(0, slot) for slot in range(8)]
    assert len({str(p) for p in bench.params()}) == 8
    assert bench.listener.started == [(slot, 0) for slot in range(8)]
    assert bench.run().jobs == []


def test_runs_say_what_the_study_says() -> None:
    bench = Bench()
    bench.run()
    assert len(bench.tracker.runs) == 8
    for trial in finished_trials(bench.study):
        run = bench.tracker.runs[trial.user_attrs["run_id"]]
        assert run.status == "FINISHED"
        assert {name: run.params[name] for name in trial.params} == trial.params
        assert run.params["learning_rate"] == TrialParams(**trial.params).learning_rate
        assert run.tags["slot"] == trial.user_attrs["slot"] and run.tags["optuna_trial"] == trial.number
        assert run.tags["status"] == trial.user_attrs["outcome"]
        by_step = {step: metrics for step, metrics in run.metrics if "epoch_seconds" in metrics}
        assert {step: metrics["val_macro_f1"] for step, metrics in by_step.items()} == trial.intermediate_values
        last = run.metrics[-1][1]
        assert last["value"] == trial.user_attrs["value"] == last["final_val_macro_f1"]
        if trial.state is TrialState.COMPLETE:
            assert trial.values == [last["value"]] and len(trial.intermediate_values) == EPOCHS


def test_a_poor_trial_is_pruned_with_its_reason() -> None:
    bench = Bench(pruner_startup_trials=2)
    bench.run(ScriptedExecutor(lambda n, job: [0.5, 0.6, 0.7] if n < 3 else [0.1, 0.1, 0.1]))
    outcomes = [t.user_attrs["outcome"] for t in finished_trials(bench.study)]
    assert outcomes == ["complete"] * 3 + ["pruned"] * 5
    pruned = finished_trials(bench.study)[3]
    assert pruned.state is TrialState.PRUNED and pruned.user_attrs["reason"] == "median rule at epoch 2"
    assert sorted(pruned.intermediate_values) == [1, 2]
    assert bench.tracker.runs[pruned.user_attrs["run_id"]].tags["reason"] == "median rule at epoch 2"


def test_without_a_pruner_every_trial_runs_its_full_length() -> None:
    bench = Bench(pruner="none")
    bench.run(ScriptedExecutor(lambda n, job: [1.0 / (n + 1)] * EPOCHS))
    assert all(t.state is TrialState.COMPLETE for t in finished_trials(bench.study))


def test_nothing_is_pruned_after_its_last_epoch() -> None:
    bench = Bench(pruner_warmup_epochs=EPOCHS)
    bench.run(ScriptedExecutor(lambda n, job: [1.0 / (n + 1)] * EPOCHS))
    assert all(t.state is TrialState.COMPLETE for t in finished_trials(bench.study))


def test_a_diverged_trial_is_finished_and_never_the_best() -> None:
    bench = Bench()
    bench.run(ScriptedExecutor(lambda n, job: "diverge" if n == 2 else curve(job.params)))
    trial = finished_trials(bench.study)[2]
    assert (trial.state, trial.user_attrs["outcome"]) == (TrialState.PRUNED, "diverged")
    assert trial.user_attrs["value"] == 0 and "not finite in epoch 1" in trial.user_attrs["reason"]
    assert bench.tracker.runs[trial.user_attrs["run_id"]].status == "FINISHED"
    assert bench.listener.ended[2] == (2, "diverged", 0.0)


def test_a_crashed_trial_is_tried_again_with_the_same_parameters() -> None:
    bench = Bench()
    executor = bench.run(ScriptedExecutor(lambda n, job: "crash" if n in (3, 4) else curve(job.params)))
    attempts = [job for job in executor.jobs if job.slot == 3]
    assert len(attempts) == 3 and len({(job.params, job.seed) for job in attempts}) == 1
    assert bench.slots() == list(range(8))
    failed = [t for t in bench.study.trials if t.state is TrialState.FAIL]
    assert [t.user_attrs["error"] for t in failed] == ["MemoryError: 3 GB"] * 2
    runs = [bench.tracker.runs[t.user_attrs["run_id"]] for t in failed]
    assert all((r.status, r.texts, r.tags["status"]) == ("FAILED", {"traceback.txt": CRASH}, "failed") for r in runs)
    untouched = Bench()
    untouched.run()
    assert bench.params() == untouched.params()


def test_a_slot_is_given_up_after_max_attempts_and_another_takes_its_place() -> None:
    bench = Bench(max_attempts=2)
    executor = bench.run(ScriptedExecutor(lambda n, job: "crash" if job.slot == 1 else curve(job.params)))
    assert [job.slot for job in executor.jobs].count(1) == 2
    assert bench.slots() == [0, *range(2, 9)]


def test_three_slots_given_up_in_a_row_end_the_study_and_more_attempts_continue_it() -> None:
    bench = Bench(max_attempts=2)
    executor = ScriptedExecutor(lambda n, job: curve(job.params) if job.slot < 2 else "crash")
    with pytest.raises(StudyStalledError, match=r"three trials in a row failed 2 times.*MemoryError: 3 GB"):
        bench.run(executor)
    assert [job.slot for job in executor.jobs] == [0, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(StudyStalledError, match=r"search\.max_attempts"):
        bench.run()
    bench.run(max_attempts=3)
    assert bench.slots() == list(range(8))


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("killed", [False, True], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("job", range(8))
def test_an_interrupted_study_draws_the_same_parameters(
    job: int, killed: bool, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Bench()
    undisturbed.run()
    bench = Bench()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if killed:
            patch.setattr(SearchStudy, "_abandon", lambda self, executor: None)
        bench.run(ScriptedExecutor(interrupt_in=(job, epoch)))
    assert bench.slots() == list(range(job))
    states = {t.state for t in bench.study.trials}
    assert (TrialState.RUNNING in states) is killed
    bench.run()
    assert bench.params() == undisturbed.params()
    assert [t.values for t in finished_trials(bench.study)] == [t.values for t in finished_trials(undisturbed.study)]
    assert {t.state for t in bench.study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    statuses = [run.status for run in bench.tracker.runs.values()]
    assert statuses.count("KILLED") == 1 and statuses.count("FINISHED") == 8
    assert [run.tags["status"] for run in bench.tracker.runs.values()].count("killed") == 1


def test_interruptions_do_not_count_as_failed_attempts() -> None:
    bench = Bench(max_attempts=1)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            bench.run(ScriptedExecutor(interrupt_in=(0, 1)))
    bench.run()
    assert bench.slots() == list(range(8))


def kill_in(bench: Bench, job: int, epoch: int, patch: pytest.MonkeyPatch) -> None:
    """The driver dies as by kill -9 while a job trains an epoch, both from 0."""
    with patch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(SearchStudy, "_abandon", lambda self, executor: None)
        bench.run(ScriptedExecutor(interrupt_in=(job, epoch)))


def test_a_trial_that_kills_its_driver_every_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(max_attempts=3)
    for _ in range(3):
        kill_in(bench, 0, 0, monkeypatch)
    bench.run()
    assert bench.slots() == list(range(1, 9))
    lost = [t for t in bench.study.trials if t.state is TrialState.FAIL]
    assert [t.user_attrs["error"] for t in lost] == ["the search was killed while it ran"] * 3


def test_a_machine_that_is_started_anew_during_every_epoch_gets_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(max_attempts=1)
    for epoch in (1, 2):
        kill_in(bench, 0, epoch, monkeypatch)
    bench.run()
    assert bench.slots() == list(range(8))


def test_repair_closes_running_and_waiting_trials() -> None:
    bench = Bench()
    driver = bench.driver()
    bench.study.enqueue_trial({"optimizer": "sgd", "lr_factor": 1.0, "freeze_depth": 2}, user_attrs={"slot": 0})
    bench.study.ask()
    bench.study.enqueue_trial({"optimizer": "adam", "lr_factor": 1.0, "freeze_depth": 2}, user_attrs={"slot": 1})
    assert [t.state for t in bench.study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    assert driver.repair() == 2
    assert [t.state for t in bench.study.trials] == [TrialState.FAIL] * 2
    assert driver.repair() == 0
    bench.run()
    assert bench.slots() == list(range(8)) and bench.params()[0]["optimizer"] == "momentum"


def test_a_run_that_was_finished_before_its_trial_was_told_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(SearchStudy, "_abandon", lambda self, executor: None)
        tell = bench.study.tell

        def killed_before_telling(trial: optuna.Trial, *arguments: Any, **more: Any) -> Any:
            if trial.number == 2:
                raise SystemExit
            return tell(trial, *arguments, **more)

        patch.setattr(bench.study, "tell", killed_before_telling)
        bench.run()
    assert [run.status for run in bench.tracker.runs.values()] == ["FINISHED"] * 3
    bench.run()
    assert [run.status for run in bench.tracker.runs.values()].count("FINISHED") == 8 == len(bench.slots())


def test_more_trials_continue_a_finished_study() -> None:
    bench = Bench()
    bench.run(trials=3)
    assert bench.slots() == [0, 1, 2]
    bench.run(trials=8)
    whole = Bench()
    whole.run()
    assert bench.params() == whole.params()
    assert bench.run(trials=4).jobs == []


def test_a_stop_lets_the_running_trial_end() -> None:
    bench = Bench()
    executor = ScriptedExecutor()
    bench.driver().run(executor, stopping=lambda: len(executor.jobs) == 3)
    assert bench.slots() == [0, 1, 2]
    assert executor.cancelled == []


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_seed_decides(sampler: str) -> None:
    first, second, other = Bench(sampler=sampler), Bench(sampler=sampler), Bench(sampler=sampler)
    first.run()
    second.run()
    settings = parse({**_plain(other), "seed": 1})
    other.driver_of(settings).run(ScriptedExecutor())
    assert first.params() == second.params()
    assert first.params()[0] == other.params()[0]
    assert first.params()[1:] != other.params()[1:]


def _plain(bench: Bench) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(settings_of(**bench.search))
    return plain


def test_several_at_a_time_fill_the_same_slots() -> None:
    bench = Bench()
    executor = bench.run(ScriptedExecutor(capacity=3))
    assert sorted(job.slot for job in executor.jobs) == bench.slots() == list(range(8))
    crashing = Bench()
    crashing.run(ScriptedExecutor(lambda n, job: "crash" if n % 4 == 1 else curve(job.params), capacity=3))
    assert len(crashing.slots()) == 8


def test_folds_are_pruned_by_step_not_by_epoch() -> None:
    bench = Bench()
    settings = parse({"search": {"trials": 1}, "trainer": {"epochs": EPOCHS}, "data": {"folds": 2}})
    bench.driver_of(settings).run(ScriptedExecutor(lambda n, job: [0.1 * (step + 1) for step in range(2 * EPOCHS)]))
    assert sorted(bench.study.trials[0].intermediate_values) == list(range(1, 2 * EPOCHS + 1))


def test_a_study_in_a_journal_is_continued_by_the_same_identity_only(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "s.journal"
    identity = {"seed": 0, "data.size": (32, 32), "data.fit": "stretch", "data.path": "강판", "data_digest": "a"}
    study, existed = load_or_create(path, "s", identity, fresh=False)
    assert not existed
    Bench(study).run(trials=2)
    again, existed = load_or_create(path, "s", identity, fresh=False)
    assert existed and len(finished_trials(again)) == 2
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"study 's' was made with seed=0, now 1; take another search\.study"):
        load_or_create(path, "s", {**identity, "seed": 1}, fresh=False)
    other = {**identity, "data.size": (64, 64), "data.fit": "pad"}
    with pytest.raises(InputError, match=r"data\.size=\[32,32\] data\.fit=stretch continues it; take"):
        load_or_create(path, "s", other, fresh=False)
    with pytest.raises(InputError, match=r"was made with other images .*: data_digest='a', now 'b'; take another"):
        load_or_create(path, "s", {**other, "data_digest": "b"}, fresh=False)
    assert path.read_bytes() == before
    waiting = path.with_name("s.waiting")
    waiting.mkdir()
    anew, existed = load_or_create(path, "s", {**identity, "seed": 1}, fresh=True)
    assert not existed and finished_trials(anew) == [] and not waiting.exists()
