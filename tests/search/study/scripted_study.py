"""A study in memory, driven by an executor that plays a script, with every call to tracker and listener kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import InMemoryStorage

from search.executor.protocol import Event, Failed, Finished, Job, Reported
from search.settings.parsing import parse
from search.settings.schema import Settings
from search.study.driver import SearchStudy
from search.study.record import finished_trials
from search.trial.files import TrialFiles
from search.trial.result import EpochReport, TrialParams, TrialResult, Verdict
from search.trial.space import Space

EPOCHS = 3
DEFAULT = TrialParams("momentum", 1.0, 4)
SPACE = Space(("sgd", "momentum", "adam"), (0.1, 10.0), (0, 8), DEFAULT)
CRASH = "Traceback (most recent call last):\n  ...\nMemoryError: 3 GB"


def score(params: TrialParams) -> float:
    """A smooth landscape with its best near factor 2 and depth 3."""
    return math.exp(-(math.log(params.lr_factor / 2) ** 2) - ((params.freeze_depth - 3) / 8) ** 2)


def curve(params: TrialParams) -> list[float]:
    return [score(params) * (epoch + 1) / EPOCHS for epoch in range(EPOCHS)]


@dataclass
class ScriptedExecutor:
    """Plays, for the n-th job, what `script(n, job)` says: scores by epoch, or "crash", or "diverge"."""

    script: Callable[[int, Job], list[float] | str] = lambda n, job: curve(job.params)
    capacity: int = 1
    jobs: list[Job] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    interrupt_in: tuple[int, int] | None = None  # (n-th job, epoch)
    maps: Callable[[Job, int], dict[str, dict[str, float]]] = lambda job, epoch: {}

    def __post_init__(self) -> None:
        self._playing: dict[int, Generator[Event, Verdict | None, None]] = {}
        self._answers: dict[int, Verdict] = {}

    def submit(self, job: Job) -> None:
        assert job.slot not in self._playing and len(self._playing) < self.capacity
        self._playing[job.slot] = self._play(len(self.jobs), job)
        self.jobs.append(job)

    def poll(self, timeout: float) -> Event | None:
        slot = next(iter(self._playing))
        playing = self._playing.pop(slot)
        event = playing.send(self._answers.pop(slot, None))
        if isinstance(event, Reported):
            self._playing[slot] = playing  # behind the others
        return event

    def answer(self, slot: int, verdict: Verdict) -> None:
        self._answers[slot] = verdict

    def cancel(self, slot: int) -> None:
        self.cancelled.append(slot)
        self._playing.pop(slot, None)

    def close(self) -> None:
        pass

    def _play(self, number: int, job: Job) -> Generator[Event, Verdict | None, None]:
        script = self.script(number, job)
        if script == "crash":
            yield Failed(job.slot, CRASH)
            return
        diverge = script == "diverge"
        values = [0.0] if diverge else script
        reports: list[EpochReport] = []
        stopped = None
        for epoch, value in enumerate(values):
            if self.interrupt_in == (number, epoch):
                raise KeyboardInterrupt
            assert isinstance(value, float)
            metrics = {"val_macro_f1": value, "val_accuracy": value}
            maps = self.maps(job, epoch)
            reports.append(EpochReport(epoch, 0, epoch, value, 1.0, metrics, 0.1, maps, 0.01 if maps else 0.0))
            verdict = "train" if epoch < job.reported else (yield Reported(job.slot, reports[-1]))
            if diverge or verdict != "train":
                stopped = "diverged" if diverge else "pruned" if verdict == "stop" else "waiting"
                break
        last = reports[-1]
        result = TrialResult(last.value, last.loss, last.metrics, tuple(reports), 0.3, 1.0, stopped)
        yield Finished(job.slot, result)


@dataclass
class Run:
    name: str
    params: dict[str, Any]
    tags: dict[str, Any]
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    status: str = "RUNNING"


class MemoryTracker:
    """What the driver needs of `Tracker`."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}

    def start_trial(self, parent: str, name: str, params: dict[str, Any], tags: dict[str, Any]) -> str:
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = Run(name, dict(params), dict(tags))
        return run_id

    def log(
        self, run_id: str, metrics: dict[str, float], *, step: int = 0, tags: Any = None, earlier: Any = None
    ) -> None:
        self.runs[run_id].metrics += [*(earlier or {}).items(), (step, dict(metrics))]
        self.runs[run_id].tags.update(tags or {})

    def log_text(self, run_id: str, text: str, file: str) -> None:
        self.runs[run_id].texts[file] = text

    def finish(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status

    def kill(self, run_id: str, earlier: Any = None) -> None:
        self.log(run_id, {}, tags={"status": "killed"}, earlier=earlier)
        self.finish(run_id, "KILLED")

    def active(self, run_id: str) -> bool:
        return run_id in self.runs

    def resume(self, run_id: str, tags: Any = None) -> None:
        self.log(run_id, {}, tags=tags)
        self.runs[run_id].status = "RUNNING"

    def kill_open_runs(self, parent: str) -> int:
        left = [run_id for run_id, run in self.runs.items() if run.status == "RUNNING"]
        for run_id in left:
            self.kill(run_id)
        return len(left)


class Listener:
    def __init__(self) -> None:
        self.ended: list[tuple[int, str, float | None]] = []
        self.started: list[tuple[int, int]] = []
        self.epochs: list[int] = []
        self.waits: list[int] = []
        self.went_on: list[tuple[int, int]] = []

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:
        self.started.append((slot, attempt))

    def epoch(self, slot: int, report: EpochReport) -> None:
        self.epochs.append(slot)

    def trial_waits(self, slot: int, value: float) -> None:
        self.waits.append(slot)

    def trial_goes_on(self, slot: int, params: TrialParams, epochs: int) -> None:
        self.went_on.append((slot, epochs))

    def trial_ended(self, slot: int, outcome: str, value: float | None, best: tuple[float, int] | None) -> None:
        self.ended.append((slot, outcome, value))

    def waiting(self) -> None:
        pass


def settings_of(**search: Any) -> Settings:
    # The median rule, since it lets every trial reach the epoch at which these tests disturb it.
    quick = {
        "trials": 8,
        "startup_trials": 3,
        "pruner": "median",
        "pruner_startup_trials": 2,
        "pruner_warmup_epochs": 2,
    }
    return parse({"search": quick | search, "trainer": {"epochs": EPOCHS}})


class Bench:
    """One study in memory, driven any number of times."""

    def __init__(self, study: optuna.Study | None = None, *, space: Space = SPACE, **search: Any) -> None:
        self.study = study or optuna.create_study(storage=InMemoryStorage(), direction="maximize")
        self.tracker = MemoryTracker()
        self.listener = Listener()
        self.search, self.space = search, space
        self.validated = 0

    def driver(self, trial_files: Path | None = None, **search: Any) -> SearchStudy:
        return self.driver_of(settings_of(**{**self.search, **search}), trial_files)

    def driver_of(self, settings: Settings, trial_files: Path | None = None) -> SearchStudy:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return SearchStudy(
            settings,
            self.space,
            self.study,
            self.tracker,
            "parent",
            self.listener,
            trial_files=TrialFiles(trial_files),  # type: ignore[arg-type]
            validated=self.validated,
        )

    def run(self, executor: ScriptedExecutor | None = None, **search: Any) -> ScriptedExecutor:
        executor = executor or ScriptedExecutor()
        driver = self.driver(**search)
        driver.repair()
        driver.run(executor)
        return executor

    def slots(self) -> list[int]:
        return [t.user_attrs["slot"] for t in finished_trials(self.study)]

    def params(self) -> list[dict[str, Any]]:
        return [t.params for t in finished_trials(self.study)]
