"""The whole search, in order: images, splits, network, study, winner. Each step is somebody else's module."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from filelock import FileLock, Timeout
from lightning_modules.splits import Splits, make_splits
from rich.console import Console

from lightning_modules import backbones
from lightning_modules.allocator import keep_freed_memory
from lightning_modules.errors import InputError
from lightning_modules.image_index import ImageIndex
from lightning_modules.image_store import ImageSet, load_images
from search.executor.inline import InlineExecutor
from search.figures import curves_figure, histogram_figure
from search.interrupts import InterruptFlag, graceful_interrupts
from search.progress import StudyProgress, describe_params
from search.settings import Settings
from search.space import Space, build_space
from search.study import SearchStudy, finished_trials, load_or_create
from search.summary import print_trials, print_where, print_winner
from search.task import Task, build_task, choose_device, state_digest
from search.tracking import Tracker
from search.trial import TrialParams
from search.validation import flatten, key_paths
from search.winner import Winner, choose_winner, crown_winner, package_versions, recorded_winner

__all__ = ["InterruptedSearchError", "SearchOutcome", "run_search"]


class InterruptedSearchError(Exception):
    """The user stopped the search; the same command continues it."""


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


class _Clock:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started


def run_search(settings: Settings, console: Console) -> SearchOutcome:
    """Search, test the winner once, and register it; continues the study where an earlier call stopped.

    Raises:
        InputError: bad input, found before anything is written.
        InterruptedSearchError: the user stopped it.
        StudyStalledError: trials fail for a reason of their own.
    """
    clock = _Clock()
    keep_freed_memory()
    torch.set_num_threads(settings.executor.threads or len(os.sched_getaffinity(0)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choose_device(settings.trainer.accelerator)
    root = settings.tracking.root
    if root.exists() and not root.is_dir():
        raise InputError(f"tracking.root must be a folder, got the file {root}")
    # A first build for two classes finds wrong names, weights, sizes and depths before any image is read.
    build = partial(backbones.build, settings.model.name, size=settings.data.size, weights=settings.model.weights)
    space = build_space(settings.space, build(classes=2, seed=settings.seed))
    with clock("images"):
        images = _load(settings, console)
        splits = _split(settings, images.index)
    _describe_data(console, images.index, splits)
    with clock("network"):
        task = build_task(settings, images, splits, cache=root / "cache", on_note=partial(console.print, markup=False))
    identity = _identity(settings, task)
    name = settings.search.study or _default_name(settings, identity)
    with _owned(root / "studies", name):
        return _run_study(settings, console, clock, task, space, name, identity)


def _run_study(
    settings: Settings,
    console: Console,
    clock: _Clock,
    task: Task,
    space: Space,
    name: str,
    identity: dict[str, Any],
) -> SearchOutcome:
    root, metric = settings.tracking.root, settings.search.metric
    study, existed = load_or_create(root / "studies" / f"{name}.journal", name, identity, fresh=settings.search.fresh)
    with clock("tracking"):
        tracker = Tracker(root, settings.tracking.experiment)
        parent = _parent_run(settings, study, tracker, task, name)
    before = finished_trials(study)
    best = choose_winner(study)
    progress = StudyProgress(
        console,
        trials=settings.search.trials,
        finished=len(before),
        epochs=settings.trainer.epochs * len(task.splits.folds),
        metric=metric,
        best=(int(best.user_attrs["slot"]), best.values[0]) if best else None,
    )
    driver = SearchStudy(settings, space, study, tracker, parent, progress)
    repaired = driver.repair()
    _describe_study(console, task, name, len(before), settings.search.trials, existed, repaired)
    status = "KILLED"
    try:
        with graceful_interrupts(partial(console.print, style="bold")) as stopping:
            _run_trials(settings, clock, task, driver, progress, stopping, len(before))
            if stopping.requested:
                raise InterruptedSearchError(_continue_line(study, settings))
            with clock("winner"), console.status("Refitting and testing the winner"):
                winner = _winner(task, study, tracker, parent, stopping)
        with clock("figures"):
            _log_figures(task, study, tracker, parent, winner)
        tracker.log(parent, {f"seconds_{phase}": value for phase, value in clock.seconds.items()})
        status = "FINISHED"
    except KeyboardInterrupt:
        raise InterruptedSearchError(_continue_line(study, settings)) from None
    finally:
        tracker.finish(parent, status)
    print_trials(console, study, metric)
    print_winner(console, winner)
    print_where(
        console, root=root, experiment=settings.tracking.experiment, study=name, winner=winner,
        model_name=settings.tracking.model_name,
    )  # fmt: skip
    return SearchOutcome(name, parent, winner, clock.seconds)


def _run_trials(
    settings: Settings,
    clock: _Clock,
    task: Task,
    driver: SearchStudy,
    progress: StudyProgress,
    stopping: InterruptFlag,
    finished: int,
) -> None:
    if finished >= settings.search.trials:
        return
    with clock("warmup"):
        for fold in task.splits.folds:
            task.start_net(fold.train)
    executor = InlineExecutor(task)
    try:
        with clock("trials"), progress.shown():
            driver.run(executor, stopping)
    finally:
        executor.close()


def _winner(task: Task, study: optuna.Study, tracker: Tracker, parent: str, stopping: InterruptFlag) -> Winner:
    trial = choose_winner(study)
    if trial is None:
        raise InputError("no trial ran its full length, so there is no winner; raise search.trials")
    recorded = recorded_winner(study)
    if recorded is not None and recorded.slot == int(trial.user_attrs["slot"]):
        return recorded
    return crown_winner(task, study, trial, tracker, parent, clock=time.perf_counter, cancelled=stopping)


def _load(settings: Settings, console: Console) -> ImageSet:
    data = settings.data

    def show(done: int, total: int) -> None:
        status.update(f"Reading images: {done} of {total}")

    with console.status("Reading images") as status:
        return load_images(
            data.source,  # type: ignore[arg-type]
            data.path,
            size=data.size,
            fit=data.fit,  # type: ignore[arg-type]
            on_bad=data.on_bad,  # type: ignore[arg-type]
            min_per_class=data.min_per_class,
            max_pixels=data.max_pixels,
            groups=data.groups,  # type: ignore[arg-type]
            images=data.images,
            seed=settings.seed,
            cache=settings.tracking.root / "cache",
            on_progress=show,
            accept=partial(_split, settings),
        )


def _split(settings: Settings, index: ImageIndex) -> Splits:
    data = settings.data
    return make_splits(
        index,
        test=data.test,  # type: ignore[arg-type]
        test_months=data.test_months,
        test_fraction=data.test_fraction,
        validation=data.validation,  # type: ignore[arg-type]
        validation_fraction=data.validation_fraction,
        folds=data.folds,
        repeats=data.repeats,
        max_train_per_class=data.max_train_per_class,
        seed=settings.seed,
    )


def _describe_data(console: Console, index: ImageIndex, splits: Splits) -> None:
    months = f", {len(index.months)} months {index.months[0]} to {index.months[-1]}" if index.months else ""
    folds = f" in {len(splits.folds)} folds" if len(splits.folds) > 1 else ""
    console.print(
        f"Images: {len(index.records)} in {len(index.classes)} classes{months}; "
        f"{len(splits.folds[0].train)} train, {len(splits.folds[0].val)} validation{folds}, {len(splits.test)} test.",
        highlight=False,
    )
    for note in (*index.notes, *splits.notes):
        console.print(f"  {note}", highlight=False, markup=False)
    if index.set_aside:
        console.print(f"Set aside: {len(index.set_aside)} inputs.", style="yellow")
        for problem in index.set_aside:
            console.print(f"  {problem.path}: {problem.reason}", highlight=False, markup=False, soft_wrap=True)


def _describe_study(
    console: Console, task: Task, name: str, finished: int, trials: int, existed: bool, repaired: int
) -> None:
    net = task.net
    weights = "pre-trained" if net.pretrained else "random"
    console.print(
        f"Network: {net.architecture}, {weights} weights, {net.depth} blocks on {task.device}.", highlight=False
    )
    if not existed:
        state = f"{trials} trials"
    elif finished >= trials:
        state = f"complete with {finished} finished trials"
    else:
        state = f"continued with {finished} of {trials} trials finished"
    lost = f"; {repaired} lost to an interruption, asked again" if repaired else ""
    console.print(f"Study: {name}, {state}{lost}.", highlight=False, markup=False)


def _continue_line(study: optuna.Study, settings: Settings) -> str:
    count = len(finished_trials(study))
    return f"Stopped with {count} of {settings.search.trials} trials finished; the same command continues the study."


def _identity(settings: Settings, task: Task) -> dict[str, Any]:
    fields = key_paths()
    chosen = {k: v for k, v in flatten(settings).items() if fields[k][0].metadata["identity"]}
    return chosen | {
        "data_digest": task.index.digest,
        "splits_digest": task.splits.digest,
        "weights_digest": state_digest(task.net),
    }


def _default_name(settings: Settings, identity: dict[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=4).hexdigest()
    path = settings.data.path
    data = settings.data.source
    if path is not None:
        data = path.resolve().parent.name if path.is_file() else path.resolve().name
    words = "".join(c if c.isalnum() and c.isascii() else "-" for c in f"{data}-{settings.model.name}")
    return f"{words.strip('-')}-{digest}"


@contextmanager
def _owned(folder: Path, name: str) -> Iterator[None]:
    """Keep every other driver away from the study while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / f"{name}.owner.json"
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            who = json.loads(owner.read_text())
            holder = f"process {who['pid']}, started {who['started']}"
        except (OSError, ValueError, KeyError):
            holder = "another process"
        raise InputError(
            f"study {name!r} is being run by {holder}; wait for it, or take another search.study"
        ) from None
    try:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        owner.write_text(json.dumps({"pid": os.getpid(), "started": started}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _parent_run(settings: Settings, study: optuna.Study, tracker: Tracker, task: Task, name: str) -> str:
    existing = study.user_attrs.get("parent")
    if existing is not None:
        tracker.resume_parent(existing)
        return str(existing)
    parent = tracker.start_parent(
        name,
        flatten(settings),
        {
            "study": name,
            "data_digest": task.index.digest,
            "commit": _git_commit() or "unknown",
            **{f"version.{package}": found for package, found in package_versions().items()},
        },
    )
    counts = _counts(task)
    frame = pd.DataFrame({"class": list(task.classes), **{s: list(c.values()) for s, c in counts.items()}})
    source = str(settings.data.path or "simulated")
    tracker.log_dataset(parent, frame, name=name, source=source, digest=task.index.digest)
    tracker.log_figure(parent, histogram_figure(counts), "figures/classes.png")
    study.set_user_attr("parent", parent)
    return parent


def _counts(task: Task) -> dict[str, dict[str, int]]:
    fold = task.splits.folds[0]
    parts = {"train": fold.train, "validation": fold.val, "test": task.splits.test}
    labels = task.index.labels
    return {
        split: {name: int((labels[rows] == i).sum()) for i, name in enumerate(task.classes)}
        for split, rows in parts.items()
    }


def _log_figures(task: Task, study: optuna.Study, tracker: Tracker, parent: str, winner: Winner) -> None:
    trials = finished_trials(study)
    curves = [
        (
            describe_params(TrialParams(**t.params)),
            [t.intermediate_values[step] for step in sorted(t.intermediate_values)],
            t.state is optuna.trial.TrialState.PRUNED,
        )
        for t in trials
    ]
    best = next(i for i, t in enumerate(trials) if int(t.user_attrs["slot"]) == winner.slot)
    tracker.log_figure(parent, curves_figure(curves, task.settings.search.metric, best), "figures/training_curves.png")
    tracker.log(
        parent,
        {"best_value": winner.value, "trials": len(trials), "winner_slot": winner.slot},
        tags={"winner": f"trial {winner.slot}: {describe_params(TrialParams(**winner.params))}"},
    )
    tracker.log_text(parent, task.cache.describe(), "activation_cache.json")


def _git_commit() -> str | None:
    """Commit of the checkout this runs from, read without starting git."""
    git = Path(__file__).resolve().parent.parent / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        return (git / head.removeprefix("ref: ")).read_text().strip()
    except OSError:
        return None
