"""The driver: the only owner of the Optuna study. ask -> executor -> report or prune -> tell.

A *slot* is a place in the study, 0..trials-1. Each slot is filled by one finished trial (complete or pruned); a trial
lost to a crash is told FAIL and its slot asked again with the same parameters. Everything needed to go on after an
interruption is in Optuna's storage: which slots are filled, which attempts were lost, the ids of the MLflow runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lightning_modules.errors import InputError
from search.executor.protocol import Executor, Failed, Finished, Job, Reported
from search.pruner import build_pruner
from search.sampler import build_sampler, slot_seed
from search.settings import Settings
from search.space import Space
from search.tracking import Tracker
from search.trial_result import EpochReport, TrialParams, TrialResult

__all__ = ["SearchStudy", "StudyListener", "StudyStalledError", "finished_trials", "load_or_create", "open_storage"]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_POLL_SECONDS = 0.2


class StudyStalledError(Exception):
    """Too many slots were given up in a row for more trials to be worth trying."""


class StudyListener(Protocol):
    """Whoever shows how the study goes."""

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:
        """An attempt at a slot begins."""

    def epoch(self, slot: int, report: EpochReport) -> None:
        """An epoch is over."""

    def trial_ended(self, slot: int, outcome: str, value: float | None) -> None:
        """An attempt ended: complete, pruned, diverged or failed."""

    def waiting(self) -> None:
        """Called a few times a second."""


@dataclass
class _Active:
    trial: optuna.Trial
    run_id: str
    attempt: int
    params: TrialParams
    reason: str = ""


def open_storage(path: Path) -> JournalStorage:
    """Optuna's storage in a journal file."""
    return JournalStorage(JournalFileBackend(str(path)))


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials (complete or pruned), one a slot, by slot."""
    done = [t for t in study.get_trials(deepcopy=False) if t.state in _FINISHED and "slot" in t.user_attrs]
    return sorted(done, key=lambda t: int(t.user_attrs["slot"]))


class SearchStudy:
    """Runs trials until the study has as many finished ones as asked for.

    Args:
        settings: all settings.
        space: what to search.
        study: the Optuna study; this object must be its only user.
        tracker: where runs are logged.
        parent: id of the study's MLflow run.
        listener: told of everything that happens.
    """

    def __init__(
        self,
        settings: Settings,
        space: Space,
        study: optuna.Study,
        tracker: Tracker,
        parent: str,
        listener: StudyListener,
    ) -> None:
        self.settings = settings
        self.space = space
        self.study = study
        self._tracker = tracker
        self._parent = parent
        self._listener = listener
        self._active: dict[int, _Active] = {}
        self._steps = settings.trainer.epochs * settings.data.folds * settings.data.repeats
        study.pruner = build_pruner(settings.search, self._steps)

    def repair(self) -> int:
        """Tell trials that an interrupted driver left open FAIL; returns how many. Call before `run`."""
        open_trials = [
            t for t in self.study.get_trials(deepcopy=False) if t.state in (TrialState.RUNNING, TrialState.WAITING)
        ]
        for frozen in open_trials:
            if frozen.state is TrialState.WAITING:
                self.study.ask()  # pops exactly this one: waiting trials are handed out in order
            self.study.tell(frozen.number, state=TrialState.FAIL)
            # Its run may even say FINISHED: a driver can be killed between that and telling Optuna.
            if run_id := frozen.user_attrs.get("run_id"):
                self._tracker.kill(run_id)
        self._tracker.kill_open_runs(self._parent)
        return len(open_trials)

    def run(self, executor: Executor, stopping: Callable[[], bool] = lambda: False) -> None:
        """Fill every slot.

        Args:
            executor: runs the trials.
            stopping: True lets running trials end and starts no more.

        Raises:
            StudyStalledError: three slots in a row failed in every attempt.
        """
        try:
            while True:
                if not stopping():
                    self._start_jobs(executor)
                if not self._active:
                    return
                event = executor.poll(_POLL_SECONDS)
                if isinstance(event, Reported):
                    executor.answer(event.slot, self._report(event.slot, event.report))
                elif isinstance(event, Finished):
                    self._finish(event.slot, event.result)
                elif isinstance(event, Failed):
                    self._fail(event.slot, event.traceback)
                self._listener.waiting()
        finally:
            self._abandon(executor)

    def _start_jobs(self, executor: Executor) -> None:
        while len(self._active) < executor.capacity and (slot := self._next_slot()) is not None:
            executor.submit(self._ask(slot))

    def _attempts(self) -> dict[int, list[FrozenTrial]]:
        attempts: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "slot" in trial.user_attrs:
                attempts.setdefault(int(trial.user_attrs["slot"]), []).append(trial)
        return attempts

    def _next_slot(self) -> int | None:
        """The lowest slot that is neither filled, running nor given up, while finished trials are missing."""
        attempts, most = self._attempts(), self.settings.search.max_attempts
        filled = {slot for slot, trials in attempts.items() if any(t.state in _FINISHED for t in trials)}
        # An interruption is nobody's fault: only attempts that died of an error count towards giving up.
        errors = {slot: sum("error" in t.user_attrs for t in trials) for slot, trials in attempts.items()}
        given_up = {slot for slot, count in errors.items() if count >= most and slot not in filled}
        latest = sorted(filled | given_up)[-3:]
        if len(latest) == 3 and set(latest) <= given_up:
            trial = attempts[latest[-1]][-1]
            raise StudyStalledError(
                f"three trials in a row failed {most} times each, the last with {trial.user_attrs['error']}; "
                "the tracebacks are artifacts of their runs; raise search.max_attempts to try them again"
            )
        if len(filled) + len(self._active) >= self.settings.search.trials:
            return None
        slot = 0
        while slot in filled or slot in given_up or slot in self._active:
            slot += 1
        return slot

    def _ask(self, slot: int) -> Job:
        earlier = self._attempts().get(slot, [])
        attempt = len(earlier)
        self.study.sampler = build_sampler(self.settings.search, self.settings.seed, slot)
        attrs = {"slot": slot, "attempt": attempt}
        if earlier and len(earlier[-1].params) == len(asdict(self.space.default)):
            self.study.enqueue_trial(earlier[-1].params, user_attrs=attrs)
        elif slot == 0:
            self.study.enqueue_trial(asdict(self.space.default), user_attrs=attrs)
        trial = self.study.ask()
        for name, value in attrs.items():
            trial.set_user_attr(name, value)
        params = self.space.suggest(trial)
        run_id = self._tracker.start_trial(
            self._parent,
            f"t{slot:02d} {params.optimizer} lr={params.learning_rate:.2g} freeze={params.freeze_depth}",
            {**asdict(params), "learning_rate": params.learning_rate, "seed": slot_seed(self.settings.seed, slot)},
            {
                "slot": slot, "attempt": attempt, "optuna_trial": trial.number, "optimizer": params.optimizer,
                "freeze_depth": params.freeze_depth, "status": "running",
            },
        )  # fmt: skip
        trial.set_user_attr("run_id", run_id)
        self._active[slot] = _Active(trial, run_id, attempt, params)
        self._listener.trial_started(slot, params, attempt)
        return Job(slot, params, slot_seed(self.settings.seed, slot))

    def _report(self, slot: int, report: EpochReport) -> bool:
        active = self._active[slot]
        step = report.step + 1
        active.trial.report(report.value, step)
        self._tracker.log(active.run_id, {**report.metrics, "epoch_seconds": report.seconds}, step=step)
        self._listener.epoch(slot, report)
        last = step == self._steps
        if not last and active.trial.should_prune():
            active.reason = f"{self.settings.search.pruner} rule at epoch {step}"
            return False
        return True

    def _finish(self, slot: int, result: TrialResult) -> None:
        active = self._active.pop(slot)
        trial = active.trial
        summary = {
            "value": result.value,
            "best_epoch": result.best_epoch,
            "epochs": len(result.curve),
            "seconds": result.seconds,
            "epoch_equivalents": result.epoch_equivalents,
            "micro_batch": result.micro_batch,
            "threads": result.threads,
        }
        reason = active.reason
        if result.stopped == "diverged":
            reason = f"training loss was not finite in epoch {len(result.curve)}"
        outcome = result.stopped or "complete"
        for name, value in {**summary, "outcome": outcome, "reason": reason}.items():
            trial.set_user_attr(name, value)
        self._tracker.log(
            active.run_id,
            {**summary, **{f"final_{n}": v for n, v in result.metrics.items()}},
            step=len(result.curve),
            tags={"status": outcome, "reason": reason},
        )
        self._tracker.finish(active.run_id, "FINISHED")
        if result.stopped:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, result.value)
        self._listener.trial_ended(slot, outcome, result.value)

    def _fail(self, slot: int, traceback: str) -> None:
        active = self._active.pop(slot)
        error = traceback.strip().splitlines()[-1]
        active.trial.set_user_attr("error", error)
        self._tracker.log_text(active.run_id, traceback, "traceback.txt")
        self._tracker.log(active.run_id, {}, tags={"status": "failed", "reason": error})
        self._tracker.finish(active.run_id, "FAILED")
        self.study.tell(active.trial, state=TrialState.FAIL)
        self._listener.trial_ended(slot, "failed", None)

    def _abandon(self, executor: Executor) -> None:
        """Close the books on trials that still run when the driver leaves, whatever made it leave."""
        for slot, active in list(self._active.items()):
            executor.cancel(slot)
            self.study.tell(active.trial, state=TrialState.FAIL, skip_if_finished=True)
            self._tracker.kill(active.run_id)
            del self._active[slot]


def load_or_create(path: Path, name: str, identity: Mapping[str, Any], *, fresh: bool) -> tuple[optuna.Study, bool]:
    """Open the study `name` in the journal at `path`, or create it; returns it and whether it existed.

    Args:
        path: the journal.
        name: of the study.
        identity: dotted setting -> value of everything that would make it another study.
        fresh: forget the earlier study.

    Raises:
        InputError: the study exists with another identity (names the first setting that differs).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        path.unlink(missing_ok=True)
    existed = path.exists()
    storage = open_storage(path)
    if existed and name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
    else:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    before = study.user_attrs.get("identity")
    now = json.loads(json.dumps(dict(identity)))
    if before is None:
        study.set_user_attr("identity", now)
    elif before != now:
        key = next(k for k in [*now, *before] if before.get(k) != now.get(k))
        raise InputError(
            f"study {name!r} was made with {key}={before.get(key)!r}, now {now.get(key)!r}; "
            "take another search.study, or search.fresh=true to start anew"
        )
    return study, existed
