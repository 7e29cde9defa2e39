"""The whole search, in order: images, splits, network, study, winner. Each step is somebody else's module."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Any

import optuna
from rich.console import Console

from lightning_modules.errors import InputError, printable
from search.clock import Clock
from search.command_line.interrupts import InterruptFlag, graceful_interrupts
from search.errors import InterruptedSearchError, TrialCancelledError
from search.evidence.collecting import study_evidence
from search.evidence.record import recorded_evidence
from search.evidence.trust import describe_trust
from search.executor.inline import InlineExecutor
from search.executor.local import LocalExecutor
from search.executor.protocol import Executor
from search.outcome.front import log_front, print_front
from search.outcome.log import log_outcome, parent_run
from search.outcome.summary import print_trials, print_where, print_winner
from search.outcome.winner import Winner, recorded_winner, refit_and_test
from search.report.__main__ import report_finished_search
from search.settings.schema import Settings
from search.study.driver import SearchStudy
from search.study.ownership import owned
from search.study.progress import StudyProgress
from search.study.promotion import expected_epochs
from search.study.record import choose_winner
from search.study.storage import finished_trials, load_or_create
from search.tracking.tracker import Tracker
from search.trial.files import TrialFiles
from search.trial.preparation import default_name, describe_data, identity, load, prepare_process, space_of, split
from search.trial.space import Space
from search.trial.task import Task, build_task

__all__ = ["SearchOutcome", "run_search", "run_study", "run_trials"]


@dataclass(frozen=True)
class SearchOutcome:
    """What a finished search leaves.

    Attributes:
        study: its name.
        parent: id of its MLflow run.
        winner: the tested winner.
        seconds: wall time by phase, of this call.
    """

    study: str
    parent: str
    winner: Winner
    seconds: dict[str, float]


def run_search(settings: Settings, console: Console) -> SearchOutcome:
    """Search, test the winner once, and register it; continues the study where an earlier call stopped.

    Raises:
        InputError: bad input, found before anything is written.
        InterruptedSearchError: the user stopped it.
        StudyStalledError: trials fail for a reason of their own.
    """
    clock = Clock()
    prepare_process(settings)
    space = space_of(settings)
    with clock("images"):
        images = load(settings, console)
        splits = split(settings, images.index)
    describe_data(console, images.index, splits)
    root = settings.tracking.root
    with clock("network"):
        task = build_task(settings, images, splits, cache=root / "cache", on_note=partial(console.print, markup=False))
    made_of = identity(settings, task)
    name = settings.search.study or default_name(settings, made_of)
    with owned(root / "studies", name):
        return run_study(settings, console, clock, task, space, name, made_of)


def run_study(
    settings: Settings,
    console: Console,
    clock: Clock,
    task: Task,
    space: Space,
    name: str,
    identity: dict[str, Any],
    *,
    summary: bool = True,
) -> SearchOutcome:
    """Fill the study, test its winner and log both; continues where an earlier call stopped.

    Args:
        settings: all settings.
        console: where to tell of it.
        clock: adds up the seconds.
        task: images, splits and network.
        space: what to search.
        name: of the study, which the caller owns.
        identity: see `load_or_create`.
        summary: whether to print trials and winner at the end.

    Raises:
        InputError, InterruptedSearchError, StudyStalledError: see `run_search`.
    """
    root, metric = settings.tracking.root, settings.search.metric
    journal = root / "studies" / f"{name}.journal"
    study, existed = load_or_create(journal, name, identity, fresh=settings.search.fresh)
    existed = existed and bool(study.get_trials(deepcopy=False))  # a month's study is made before it is run
    status, parent, report, files = "KILLED", None, None, TrialFiles.of(journal)
    with graceful_interrupts(partial(console.print, style="bold")) as stopping:
        try:
            with clock("tracking"), stopping.held():
                tracker = Tracker(root, settings.tracking.experiment)
                parent = parent_run(settings, study, tracker, task, name)
            before = finished_trials(study)
            best = choose_winner(study)
            batches = -(-len(task.splits.folds[0].train) // settings.trainer.batch_size)
            steps, trials = settings.trainer.epochs * len(task.splits.folds), settings.search.trials
            progress = StudyProgress(
                console,
                trials=trials,
                finished=len(before),
                epochs=steps,
                expected_epochs=expected_epochs(settings.search, steps, trials - len(before), batches=batches),
                metric=metric,
                best=(int(best.user_attrs["slot"]), best.values[0]) if best else None,
            )
            driver = SearchStudy(
                settings, space, study, tracker, parent, progress,
                trial_files=files, batches=batches, epoch_cost=task.epoch_cost,
            )  # fmt: skip
            with stopping.held():
                repaired = driver.repair()
            _describe_study(console, task, name, len(before), trials, existed, repaired)
            if len(before) < trials:
                line = f"Watch it live: optuna-dashboard {quote(printable(journal))}"
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            evidence = partial(_evidence, task, study, console, tracker, parent, stopping)
            run_trials(settings, clock, task, driver, progress, stopping, len(before), evidence)
            if stopping.requested:
                raise InterruptedSearchError(_continue_line(study, settings))
            if line := _spent_line(driver, study, settings):
                console.print(line, highlight=False)
                tracker.log(parent, {}, tags={"budget": line})
            with clock("winner"), console.status("Refitting and testing the winner"), stopping.held():
                winner = _winner(task, study, tracker, parent, files, stopping)
            with clock("figures"), stopping.held():
                log_outcome(task, study, tracker, parent, winner)
                if settings.search.objective != "accuracy":
                    log_front(task, study, tracker, parent, cancelled=stopping)
            tracker.log(parent, {f"seconds_{phase}": value for phase, value in clock.seconds.items()})
            if settings.tracking.report:
                with clock("report"), console.status("Writing the report"), stopping.held():
                    report = report_finished_search(task, name, tracker, console, files, cancelled=stopping)
                tracker.log(parent, {"seconds_report": clock.seconds["report"]})
            files.close()
            status = "FINISHED"
        except (KeyboardInterrupt, TrialCancelledError):  # the latter: Ctrl-C while the winner is refitted
            raise InterruptedSearchError(_continue_line(study, settings)) from None
        finally:
            stopping.close()
            if parent is not None:
                tracker.finish(parent, status)
    if summary:
        print_trials(console, study, metric)
        print_winner(console, winner, int(study.user_attrs.get("test_reads", 0)))
        if settings.search.objective != "accuracy":
            print_front(console, study, metric)
        print_where(
            console, root=root, experiment=settings.tracking.experiment, study=name, winner=winner,
            model_name=settings.tracking.model_name, report=report,
        )  # fmt: skip
    return SearchOutcome(name, parent, winner, clock.seconds)


def run_trials(
    settings: Settings,
    clock: Clock,
    task: Task,
    driver: SearchStudy,
    progress: StudyProgress,
    stopping: InterruptFlag,
    finished: int,
    evidence: Callable[[], None],
) -> None:
    """Fill the study's slots with whatever executor the settings name.

    Args:
        settings: all settings.
        clock: adds up the seconds.
        task: what trials train on.
        driver: owns the study.
        progress: shows how it goes.
        stopping: asked whether to stop.
        finished: trials that are finished already.
        evidence: collects what the first trials are drawn by.
    """
    if finished >= settings.search.trials or not driver.unfinished():
        return
    executor = _executor(task, progress)  # its workers start while the head is warmed up
    try:
        with clock("warmup"):
            for fold in task.splits.folds:
                task.start_net(fold.train, task.net.num_blocks)
        with clock("evidence"), stopping.held():
            evidence()
        with clock("trials"), progress.shown(), stopping.held():
            driver.run(executor, stopping)
    finally:
        executor.close()


def _evidence(
    task: Task, study: optuna.Study, console: Console, tracker: Tracker, parent: str, stopping: InterruptFlag
) -> None:
    """Collect the study's evidence, unless an earlier call has done so, and log it."""
    if recorded_evidence(study) is not None:
        return
    with console.status("Collecting evidence by block"):
        found = study_evidence(task, study, on_note=partial(console.print, highlight=False), cancelled=stopping)
    if task.settings.search.trust == "evidence":
        line = describe_trust(found)
        tracker.log(parent, {}, tags={"trust": line})
        console.print(line, highlight=False)
    if found is None:
        return
    tracker.log_text(parent, json.dumps(found.to_json(), indent=1), "evidence.json")
    tracker.log(parent, {"evidence_seconds": found.cost.seconds}, tags={"prior": found.describe()})
    if found.cost.forward_passes:
        console.print(f"Evidence: {found.cost.seconds:.1f} s, {len(found.scorers)} scorers.", highlight=False)
    console.print(found.describe(), highlight=False)


def _executor(task: Task, progress: StudyProgress) -> Executor:
    settings = task.settings
    if settings.executor.name == "inline":
        return InlineExecutor(task, on_note=progress.note)
    cache = settings.tracking.root / "cache"
    return LocalExecutor(task, cache=cache, workers=settings.executor.workers, on_note=progress.note)


def _winner(
    task: Task, study: optuna.Study, tracker: Tracker, parent: str, files: TrialFiles, stopping: InterruptFlag
) -> Winner:
    trial = choose_winner(study)
    if trial is None:
        limits = {key: getattr(task.settings.search, key) for key in ("trials", "budget", "trial_seconds")}
        larger = " or ".join(f"search.{key}" for key, value in limits.items() if value is not None)
        raise InputError(f"no trial ran its full length, so there is no winner; raise {larger}")
    slot, recorded = int(trial.user_attrs["slot"]), recorded_winner(study)
    if recorded is not None and recorded.slot == slot:
        return recorded
    return refit_and_test(
        task, study, trial, tracker, parent,
        checkpoint=files.checkpoint(slot), clock=time.perf_counter, cancelled=stopping,
    )  # fmt: skip


def _describe_study(
    console: Console, task: Task, name: str, finished: int, trials: int, existed: bool, repaired: int
) -> None:
    net = task.net
    weights = "pre-trained" if net.pretrained else "random"
    console.print(
        f"Network: {net.architecture}, {weights} weights, {net.num_blocks} blocks on {task.device}.", highlight=False
    )
    if not existed:
        state = f"{trials} trials"
    elif finished >= trials:
        state = f"complete with {finished} finished trials"
    else:
        state = f"continued with {finished} of {trials} trials finished"
    lost = f"; {repaired} lost to an interruption, asked again" if repaired else ""
    console.print(f"Study: {name}, {state}{lost}.", highlight=False, markup=False)


def _spent_line(driver: SearchStudy, study: optuna.Study, settings: Settings) -> str:
    count = len(finished_trials(study))
    why = driver.exhausted() if count < settings.search.trials else ""
    return why and f"{why}: {count} of {settings.search.trials} trials finished; a larger one continues the study."


def _continue_line(study: optuna.Study, settings: Settings) -> str:
    count = len(finished_trials(study))
    return f"Stopped with {count} of {settings.search.trials} trials finished; the same command continues the study."
