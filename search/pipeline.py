"""The whole search, in order: images, splits, network, study, winner. Each step lives in its own module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lightning_modules.errors import InputError, printable
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows
from lightning_modules.networks.pretrained import NOT_USED
from search.command_line.interrupts import graceful_interrupts
from search.errors import InterruptedSearchError, RefitDivergedError, TrialCancelledError
from search.evidence.collecting import collect_evidence
from search.evidence.trust import describe_trust
from search.executor.registry import Workers, check_executor, early_processes
from search.invocation import typed_program
from search.outcome.front import log_front, print_front
from search.outcome.log import log_outcome, parent_run
from search.outcome.summary import print_networks, print_result, print_where, print_winner
from search.outcome.winner import refit_and_test
from search.report.live import LiveReport
from search.report.so_far import look_so_far
from search.report.writing import report_finished_search
from search.settings.schema import Settings
from search.study.database import check_database, database_errors
from search.study.driver import SearchStudy
from search.study.opening import load_or_create
from search.study.ownership import owned
from search.study.progress import StudyProgress
from search.study.pruning import expected_epochs
from search.study.record import StudyRecord, Winner
from search.study.run import Clock, StudyRun
from search.tracking.server import make_tracker, server_uri
from search.tracking.store import check_unopened
from search.trial.files import TrialFiles
from search.trial.preparation import (
    costs_of,
    default_name,
    describe_data,
    load,
    prepare_process,
    resolved,
    space_of,
    split,
)
from search.trial.space import Space, build_space
from search.trial.task import Task, build_task
from search.trial.training import more_epochs
from search.words import class_counts

if TYPE_CHECKING:
    from search.executor.local import StartedProcess

__all__ = ["SearchOutcome", "run_search", "run_study"]


@dataclass(frozen=True)
class SearchOutcome:
    """What a finished search leaves.

    Attributes:
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
    if settings.tracking.uri is None:
        check_unopened(settings.tracking.root)
    else:
        server_uri(settings.tracking)
    check_executor(settings.executor)
    if settings.search.storage is not None:
        check_database(settings.search.storage)
    with console.status("Building the network"):
        space_of(settings)
    with early_processes(settings) as started:
        return _search(settings, console, clock, started)


def _search(settings: Settings, console: Console, clock: Clock, started: tuple[StartedProcess, ...]) -> SearchOutcome:
    tell = partial(console.print, markup=False, soft_wrap=True)

    def accept(index: ImageIndex) -> list[Rows]:
        costs_of(settings, index.classes, tell)  # refused here, before anything is written
        return [fold.train for fold in split(settings, index).folds]

    with clock("images"):
        images = load(settings, console, accept=accept)
        settings = resolved(settings, images)
        splits = split(settings, images.index)
    describe_data(console, images, splits)
    if settings.data.path is None:  # of a folder or table they were named before anything was loaded
        tell(f"  {class_counts(images.index.class_counts())}.", highlight=False)
    root = settings.tracking.root
    with clock("network"), console.status("Building the network"):
        task = build_task(settings, images, splits, cache=root / "cache", on_note=tell)
        others = {one.network or "": one.net for one in task.all} if settings.model.several else None
        space = build_space(settings.space, task.net, beta=settings.trainer.fostering.beta, others=others)
    name = settings.search.study or default_name(settings, task.identity)
    # A study in a database is owned there too, by whoever opens it: file locks may not reach other machines.
    with owned(root / "studies", name):
        return run_study(task, space, name, task.identity, console, clock=clock, started=started)


def run_study(
    task: Task,
    space: Space,
    name: str,
    identity: dict[str, Any],
    console: Console,
    *,
    clock: Clock | None = None,
    summary: bool = True,
    started: tuple[StartedProcess, ...] = (),
) -> SearchOutcome:
    """Fill the study, test its winner and log both; continues where an earlier call stopped.

    Args:
        clock: has added up the seconds of earlier phases.
        summary: whether to print trials and winner at the end, and when stopped how to end early; months do neither.
        started: worker processes that wait for their plan, see `early_processes`.

    Raises:
        InputError, InterruptedSearchError, StudyStalledError: see `run_search`.
    """
    settings = task.settings
    journal = settings.tracking.root / "studies" / f"{name}.journal"
    database = settings.search.storage
    with ExitStack() as stack:
        if database is not None:
            stack.enter_context(database_errors(database))
        study, existed = load_or_create(
            journal, name, identity, fresh=settings.search.fresh, database=database,
            say=partial(console.print, markup=False, soft_wrap=True),
        )  # fmt: skip
        existed = existed and bool(study.get_trials(deepcopy=False))  # a month's study is made before it is run
        files = TrialFiles.of(journal)
        run = stack.enter_context(_started(task, StudyRecord(study), console, clock or Clock(), files, summary))
        with closing(Workers(task, run.say, started)) as workers:
            _run_trials(run, space, journal, workers, existed=existed, alone=summary)
            winner = _test_winner(run, workers)
        report = None
        if settings.tracking.report:
            with run.phase("report", "Writing the report"):
                report = report_finished_search(run)
            run.tracker.log(run.parent, {"seconds_report": run.clock.seconds["report"]})
        run.files.close()
    if summary:
        console.print()
        print_result(run)
        print_winner(console, winner, run.record.test_reads)
        print_networks(console, run.record, run.metric)
        if settings.search.objective != "accuracy":
            print_front(console, run.record, run.metric)
        print_where(run, winner, report)
    return SearchOutcome(name, run.parent, winner, run.clock.seconds)


@contextmanager
def _started(
    task: Task, record: StudyRecord, console: Console, clock: Clock, files: TrialFiles, alone: bool
) -> Iterator[StudyRun]:
    """The study's run in MLflow while the block lasts: then FINISHED, or KILLED where the block was left early.

    Args:
        alone: whether it is no part of a month.
    """
    tracking, status = task.settings.tracking, "KILLED"
    parent: str | None = None
    with graceful_interrupts(partial(console.print, style="bold")) as stopping:
        try:
            with clock("tracking"), stopping.held(), console.status("Opening MLflow's store"):
                tracker = make_tracker(tracking, partial(console.print, markup=False, highlight=False))
                parent = parent_run(task, record, tracker)
            yield StudyRun(task, record, tracker, parent, console, stopping, clock, files)
            status = "FINISHED"
        except (KeyboardInterrupt, TrialCancelledError):  # the latter: Ctrl-C while the winner is refitted
            raise InterruptedSearchError(_continue_line(record, task.settings, alone)) from None
        except Exception:
            stopping()  # was it the stop that code in C turned into an error?
            raise
        finally:
            stopping.close()
            if parent is not None:
                tracker.finish(parent, status)


def _run_trials(run: StudyRun, space: Space, journal: Path, workers: Workers, *, existed: bool, alone: bool) -> None:
    """Fill the study's slots, as far as its budget goes.

    Raises:
        InterruptedSearchError: the user asked to stop after the running trial.
    """
    settings, task, record, console = run.settings, run.task, run.record, run.console
    finished, trials = len(record.finished()), settings.search.trials
    best = record.best()
    look = partial(look_so_far, run)
    live = LiveReport(record.name, settings.tracking.root, run.say, look) if settings.tracking.report else None
    progress = StudyProgress(
        console,
        trials=trials,
        finished=finished,
        epochs=settings.trainer.epochs * len(task.splits.folds),
        metric=run.metric,
        best=(best.value, best.slot) if best else None,
        on_trial=live.refresh if live is not None else lambda: None,
        cost=task.epoch_cost,
        **asdict(_forecast(run, space, finished)),
    )
    driver = SearchStudy(
        settings, space, record.source, run.tracker, run.parent, progress,
        trial_files=run.files, batches=task.batches, epoch_cost=task.epoch_cost,
        validated=sum(len(task.image_rows(fold.val)) for fold in task.splits.folds),
    )  # fmt: skip
    with run.stopping.held():
        repaired = driver.repair()
    _describe_study(run, finished, existed, repaired)
    if finished < trials:
        place = printable(settings.search.storage or journal)
        line = f"Watch it live: {typed_program('optuna-dashboard', place)}"
        run.say(line)
        if driver.unfinished():
            _execute(run, driver, progress, workers, live)
    if run.stopping.requested:
        raise InterruptedSearchError(_continue_line(record, settings, alone))
    finished = len(record.finished())
    setting, why, way_on = driver.exhausted()
    if finished < trials and why:
        line = f"{why}: {finished} of {trials} trials finished; {way_on}."
        console.print(line, highlight=False, soft_wrap=True)
        run.tracker.log(run.parent, {}, tags={setting: line})


@dataclass(frozen=True)
class _Forecast:
    """What a search is expected to cost, in epochs of training everything; see `StudyProgress`."""

    expected: float
    afterwards: float
    drawn_cost: float
    in_full: int
    whole: bool


def _forecast(run: StudyRun, space: Space, finished: int) -> _Forecast:
    settings, task, first = run.settings, run.task, space.first[: space.in_full]
    steps, to_come = settings.trainer.epochs * len(task.splits.folds), settings.search.trials - finished
    epochs = expected_epochs(settings.search, steps, to_come, batches=task.batches, in_full=space.in_full)
    low, high = space.freeze_depth
    drawn = fmean(task.epoch_cost(replace(space.default, freeze_depth=depth)) for depth in range(low, high + 1))
    known = [task.epoch_cost(params) for params in first[finished : settings.search.trials]]
    again = [
        task.epoch_cost(params) * (more_epochs(task, params.freeze_depth) or settings.trainer.epochs)
        for params in first[: settings.search.members]
    ]
    more = more_epochs(task, space.default.freeze_depth) or settings.trainer.epochs
    again += [drawn * more] * (settings.search.members - len(again))
    return _Forecast(
        expected=sum(known) * steps + max(epochs - len(known) * steps, 0) * drawn,
        afterwards=sum(again) if settings.search.refit else 0.0,
        drawn_cost=drawn,
        in_full=len(first),
        whole=epochs >= to_come * steps,
    )


def _execute(
    run: StudyRun, driver: SearchStudy, progress: StudyProgress, workers: Workers, live: LiveReport | None
) -> None:
    """Run trials with whatever executor the settings name."""
    task, executor = run.task, workers()  # they start while the head is warmed up
    with run.clock("warmup"), run.console.status("Fitting the head to the pre-trained blocks"):
        for fold in task.splits.folds:
            task.start_net(fold.train, task.net.deepest)
    with run.phase("evidence"):
        _collect_evidence(run)
    with live or nullcontext(), progress.shown(), run.phase("trials"):
        driver.run(executor, run.stopping)


def _collect_evidence(run: StudyRun) -> None:
    """Collect the study's evidence, unless an earlier call has done so, keep it and log it."""
    if run.record.evidence is not None:
        return
    tracker, parent, tell = run.tracker, run.parent, partial(run.console.print, highlight=False)
    with run.console.status("Collecting evidence by block"):
        found = collect_evidence(run.task, on_note=tell, cancelled=run.stopping)
        if found is not None:
            run.record.evidence = found
            found = run.record.evidence  # as every later call reads it
    if run.settings.search.trust == "evidence":
        line = describe_trust(found)
        tracker.log(parent, {}, tags={"trust": line})
        tell(line)
    if found is None:
        return
    tracker.log_text(parent, json.dumps(found.to_json(), indent=1), "evidence.json")
    tracker.log(parent, {"evidence_seconds": found.cost.seconds}, tags={"prior": found.describe()})
    if run.settings.search.prior == "uniform":
        return  # what it says stands in the report; trials do not go by it
    if len(run.task.all) > 1:
        tell(f"Evidence and prior are of {run.task.net.architecture}, the first network.")
    tell(found.describe())


def _test_winner(run: StudyRun, workers: Workers) -> Winner:
    """The winner, refitted and tested unless an earlier call has done so, logged with all that led to it."""
    settings, record = run.settings, run.record
    with run.phase("winner", "Refitting and testing the winner"):
        winner = record.winner
        while members := record.members(settings.search.members):
            if winner is not None and (winner.members or (winner.slot,)) == tuple(trial.slot for trial in members):
                break
            try:
                winner = refit_and_test(run, members, workers)
            except RefitDivergedError as error:
                record.refits_diverged = (*record.refits_diverged, error.slot)
                line = f"Trial {error.slot} cannot win: refitted, it answers with numbers that are not finite."
                run.say(line)
        if winner is None or not members:
            if any(t.outcome == "diverged" for t in record.finished()) or record.refits_diverged:
                what = "every trial that ran its full length diverged (a loss or an output was not finite)"
                raise InputError(f"{what}, so there is no winner; lower space.lr_factor and space.default_lr_factor")
            limits = {key: getattr(settings.search, key) for key in ("trials", "budget", "trial_seconds")}
            larger = " or ".join(f"search.{key}" for key, value in limits.items() if value is not None)
            raise InputError(f"no trial ran its full length, so there is no winner; raise {larger}")
    with run.phase("figures", "Drawing figures"):
        log_outcome(run, winner)
        if settings.search.objective != "accuracy":
            log_front(run)
    run.tracker.log(run.parent, {f"seconds_{phase}": value for phase, value in run.clock.seconds.items()})
    return winner


def _describe_study(run: StudyRun, finished: int, existed: bool, repaired: int) -> None:
    net, trials = run.task.net, run.settings.search.trials
    weights = "pre-trained" if net.pretrained else "random"
    blocks = f"{net.num_blocks} block{'s' * (net.num_blocks > 1)}"
    run.say(f"Network: {net.architecture}, {weights} weights, {blocks} on {run.task.device}.")
    if (tiles := run.task.index.tiles) is not None:
        train, left = run.task.splits.folds[0].train, int((~tiles.trainable).sum())
        unsure = f", {left} in all show too little of a defect to be trained on" if left else ""
        run.say(f"Tiles: {len(tiles.image)}, {len(train)} to train on{unsure}.")
    for one in run.task.all:
        if (block := one.net.attention_block) is not None:
            which = f" of {one.net.architecture}" if one.network else ""
            deepest = f"freeze depths up to {one.net.deepest} of {one.net.num_blocks}"
            run.say(f"Attention branch{which} behind {block}: {deepest}.")
    for other in run.task.all[1:]:
        cost = f"{other.epochs_worth(0, 1):.2g} times the operations"
        blocks = f"{other.net.num_blocks} block{'s' * (other.net.num_blocks > 1)}"
        run.say(f"Or: {other.net.architecture}, {blocks}, {cost}.")
    if net.num_blocks == 1 and net.pretrained:
        run.say("It is one block: nothing lies between freezing all of it and nothing.")
    if beside := NOT_USED.get(run.settings.model.weights):
        run.say(f"Not used of the file of weights: {beside}.")
    if not existed:
        state = f"{trials} trials"
    elif finished >= trials:
        state = f"complete with {finished} finished trials"
    else:
        state = f"continued with {finished} of {trials} trials finished"
    lost = f"; {repaired} lost to an interruption, asked again" if repaired else ""
    run.say(f"Study: {run.record.name}, {state}{lost}.")


def _continue_line(record: StudyRecord, settings: Settings, alone: bool) -> str:
    finished, trials = len(record.finished()), settings.search.trials
    line = f"Stopped with {finished} of {trials} trials finished; the same command continues the study"
    if alone and finished < trials and record.best() is not None:
        return f"{line}, and with search.trials={finished} delivers what it has."
    return f"{line}."
