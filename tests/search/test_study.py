"""The driver, with an executor and a tracker that only remember: slots, retries, interruptions, outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lightning_modules.errors import InputError
from search.executor.protocol import Event, Failed, Finished, Job, Reported
from search.settings import DataSettings, SearchSettings, Settings, TrainerSettings
from search.space import Space
from search.study import SearchStudy, StudyStalledError, finished_trials, load_or_create
from search.trial import EpochReport, TrialParams, TrialResult
from search.winner import choose_winner

EPOCHS = 4
DEFAULT = TrialParams("momentum", 1.0, 3)
SPACE = Space(("momentum", "adam"), (0.1, 10.0), (0, 8), DEFAULT)


def _settings(trials: int = 6, **search: object) -> Settings:
    chosen = {"trials": trials, "startup_trials": 3, "pruner_startup_trials": 2, "pruner_warmup_epochs": 1, **search}
    return Settings(data=DataSettings(), search=SearchSettings(**chosen), trainer=TrainerSettings(epochs=EPOCHS))  # type: ignore[arg-type]


def _score(params: TrialParams, epoch: int) -> float:
    """A score that grows with the epochs and is best at depth 5."""
    return 0.9 - 0.05 * abs(params.freeze_depth - 5) - 0.2 / (epoch + 1)


class FakeExecutor:
    """Runs a job in `poll`, one event at a time; `fate(slot, attempt)` may say "crash", "diverge" or "stop"."""

    capacity = 1

    def __init__(self, fate: Callable[[int, int], str] = lambda slot, attempt: "") -> None:
        self.jobs: list[Job] = []
        self.cancelled: list[int] = []
        self._fate = fate
        self._attempts: dict[int, int] = {}
        self._curve: list[EpochReport] = []
        self._go_on = True

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self._curve, self._go_on = [], True

    def poll(self, timeout: float) -> Event | None:
        job = self.jobs[-1]
        attempt = self._attempts.get(job.slot, 0)
        fate = self._fate(job.slot, attempt) if self._curve else ""
        if fate == "stop":
            raise KeyboardInterrupt
        if fate == "crash":
            self._attempts[job.slot] = attempt + 1
            return Failed(job.slot, "Traceback\nRuntimeError: broken")
        if not self._go_on or len(self._curve) == EPOCHS or fate == "diverge":
            stopped = "diverged" if fate == "diverge" else None if self._go_on else "pruned"
            best = max(self._curve, key=lambda r: r.value)
            value = 0.0 if stopped == "diverged" else best.value
            metrics = {"val_macro_f1": best.value}
            result = TrialResult(value, best.epoch, metrics, tuple(self._curve), 1.0, 2.0, stopped)
            return Finished(job.slot, result)
        epoch = len(self._curve)
        value = _score(job.params, epoch)
        self._curve.append(EpochReport(epoch, 0, epoch, value, {"val_macro_f1": value}, 0.1))
        return Reported(job.slot, self._curve[-1])

    def answer(self, slot: int, go_on: bool) -> None:
        self._go_on = go_on

    def cancel(self, slot: int) -> None:
        self.cancelled.append(slot)

    def close(self) -> None:
        pass


class FakeTracker:
    """Remembers the state of every run."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.tags: dict[str, dict[str, object]] = {}
        self.texts: dict[str, str] = {}

    def start_trial(self, parent: str, name: str, params: object, tags: dict[str, object]) -> str:
        run = f"run{len(self.states)}"
        self.states[run] = "RUNNING"
        self.tags[run] = dict(tags)
        return run

    def log(self, run: str, metrics: object, *, step: int = 0, tags: dict[str, object] | None = None) -> None:
        self.tags[run].update(tags or {})

    def log_text(self, run: str, text: str, file: str) -> None:
        self.texts[run] = text

    def finish(self, run: str, status: str) -> None:
        self.states[run] = status

    def kill_open_runs(self, parent: str) -> int:
        still = [run for run, state in self.states.items() if state == "RUNNING"]
        self.states.update(dict.fromkeys(still, "KILLED"))
        return len(still)


class Quiet:
    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None: ...
    def epoch(self, slot: int, report: EpochReport) -> None: ...
    def trial_ended(self, slot: int, outcome: str, value: float | None) -> None: ...
    def waiting(self) -> None: ...


def _driver(study: optuna.Study, tracker: FakeTracker, settings: Settings) -> SearchStudy:
    return SearchStudy(settings, SPACE, study, tracker, "parent", Quiet())  # type: ignore[arg-type]


def _new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def _run(settings: Settings, fate: Callable[[int, int], str] = lambda s, a: "") -> tuple[optuna.Study, FakeTracker]:
    study, tracker = _new_study(), FakeTracker()
    _driver(study, tracker, settings).run(FakeExecutor(fate))
    return study, tracker


def test_every_slot_is_filled_once_and_the_default_is_the_first() -> None:
    study, tracker = _run(_settings(8))
    trials = finished_trials(study)
    assert [t.user_attrs["slot"] for t in trials] == list(range(8))
    assert trials[0].params == asdict(DEFAULT)
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert set(tracker.states.values()) == {"FINISHED"}
    pruned = [t for t in trials if t.state is TrialState.PRUNED]
    assert all(t.user_attrs["reason"].startswith("median rule at epoch") for t in pruned)
    assert all(t.user_attrs["outcome"] == "pruned" for t in pruned)


@pytest.mark.parametrize("slot", range(5))
def test_an_interruption_changes_no_parameter(slot: int) -> None:
    undisturbed, _ = _run(_settings(5))
    study, tracker = _new_study(), FakeTracker()
    stops = iter([True])

    def fate(current: int, attempt: int) -> str:
        return "stop" if current == slot and next(stops, False) else ""

    executor = FakeExecutor(fate)
    with pytest.raises(KeyboardInterrupt):
        _driver(study, tracker, _settings(5)).run(executor)
    assert executor.cancelled == [slot]
    assert "RUNNING" not in tracker.states.values()
    again = _driver(study, tracker, _settings(5))
    assert again.repair() == 0  # the books were closed already
    again.run(FakeExecutor())
    assert [t.params for t in finished_trials(study)] == [t.params for t in finished_trials(undisturbed)]
    assert sorted(tracker.states.values()).count("KILLED") == 1
    assert list(tracker.states.values()).count("FINISHED") == 5


def test_what_a_killed_driver_left_open_is_repaired() -> None:
    settings = _settings(3)
    study, tracker = _new_study(), FakeTracker()
    driver = _driver(study, tracker, settings)
    job = driver._ask(0)  # killed here: the trial stays RUNNING
    study.enqueue_trial(asdict(DEFAULT), user_attrs={"slot": 1, "attempt": 0})  # and here: another stays WAITING
    driver = _driver(study, tracker, settings)
    assert driver.repair() == 2
    assert {t.state for t in study.trials} == {TrialState.FAIL}
    assert tracker.states == {"run0": "KILLED"}
    executor = FakeExecutor()
    driver.run(executor)
    assert executor.jobs[0].params == job.params
    assert executor.jobs[0].seed == job.seed
    assert len(finished_trials(study)) == 3


def test_a_crashed_trial_is_asked_again_with_the_same_parameters() -> None:
    study, tracker = _new_study(), FakeTracker()
    executor = FakeExecutor(lambda slot, attempt: "crash" if slot == 1 and attempt < 2 else "")
    _driver(study, tracker, _settings(3)).run(executor)
    tried = [job.params for job in executor.jobs if job.slot == 1]
    assert len(tried) == 3
    assert len(set(tried)) == 1
    assert len(finished_trials(study)) == 3
    assert list(tracker.states.values()).count("FAILED") == 2
    assert set(tracker.texts.values()) == {"Traceback\nRuntimeError: broken"}


def test_a_slot_that_always_crashes_is_given_up_and_another_takes_its_place() -> None:
    study, _ = _run(_settings(4), lambda slot, attempt: "crash" if slot == 2 else "")
    assert [t.user_attrs["slot"] for t in finished_trials(study)] == [0, 1, 3, 4]
    assert sum(t.state is TrialState.FAIL for t in study.trials) == 3


def test_a_study_in_which_everything_crashes_stops() -> None:
    with pytest.raises(StudyStalledError, match=r"three slots in a row failed 3 times each; .* RuntimeError: broken"):
        _run(_settings(10), lambda slot, attempt: "crash")


def test_a_diverged_trial_is_finished_with_the_worst_value() -> None:
    study, tracker = _run(_settings(3), lambda slot, attempt: "diverge" if slot == 1 else "")
    diverged = finished_trials(study)[1]
    assert diverged.state is TrialState.PRUNED
    assert diverged.user_attrs["outcome"] == "diverged"
    assert diverged.user_attrs["value"] == 0.0
    assert "not finite" in diverged.user_attrs["reason"]
    assert [t["status"] for t in tracker.tags.values()].count("diverged") == 1


def test_more_trials_later_continue_the_study() -> None:
    study, tracker = _run(_settings(3))
    first = [t.params for t in finished_trials(study)]
    _driver(study, tracker, _settings(6)).run(FakeExecutor())
    assert [t.params for t in finished_trials(study)][:3] == first
    whole, _ = _run(_settings(6))
    assert [t.params for t in finished_trials(study)] == [t.params for t in finished_trials(whole)]


def test_a_study_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "s.journal"
    load_or_create(path, "s", {"seed": 0, "data.size": [96, 96]}, fresh=False)
    _, existed = load_or_create(path, "s", {"seed": 0, "data.size": [96, 96]}, fresh=False)
    assert existed
    with pytest.raises(InputError, match=r"study 's' was made with data.size=\[96, 96\], now \[64, 64\]"):
        load_or_create(path, "s", {"seed": 0, "data.size": [64, 64]}, fresh=False)
    study, existed = load_or_create(path, "s", {"seed": 0, "data.size": [64, 64]}, fresh=True)
    assert not existed
    assert study.trials == []


@pytest.mark.parametrize(
    ("trials", "slot"),
    [
        ([(0, 2, 0.8), (1, 5, 0.8), (2, 4, 0.7)], 1),  # of equals the deeper, cheaper freeze
        ([(0, 5, 0.8), (1, 5, 0.8)], 0),  # then the earlier
        ([(0, 8, 0.8), (1, 0, 0.81)], 1),  # better accuracy beats cheapness
    ],
)
def test_the_winner_is_the_best_and_of_equals_the_cheaper(trials: list[tuple[int, int, float]], slot: int) -> None:
    study = _new_study()
    for number, depth, value in trials:
        study.enqueue_trial(asdict(TrialParams("adam", 1.0, depth)))
        trial = study.ask()
        SPACE.suggest(trial)
        trial.set_user_attr("slot", number)
        study.tell(trial, value)
    winner = choose_winner(study)
    assert winner is not None
    assert winner.user_attrs["slot"] == slot
    assert choose_winner(_new_study()) is None
