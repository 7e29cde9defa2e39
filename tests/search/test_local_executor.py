"""Worker processes: the same trials as in this process, and whatever kills one costs one attempt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightning_modules.image_store import load_images
from lightning_modules.splits import make_splits
from search.executor.inline import InlineExecutor
from search.executor.local import LocalExecutor
from search.executor.protocol import Event, Executor, Failed, Finished, Job, Reported
from search.settings import DataSettings, ExecutorSettings, Settings, TrainerSettings
from search.task import Task, build_task
from search.trial import EpochReport, TrialParams

JOBS = [Job(slot, TrialParams(name, 1.0, depth), 7 + slot) for slot, (name, depth) in enumerate(
    [("momentum", 5), ("adam", 8), ("sgd", 0), ("rmsprop", 7)]
)]  # fmt: skip


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> Task:
    folder = tmp_path_factory.mktemp("workers")
    images = make_stripes(folder / "images", {"a": 8, "b": 8, "c": 8})
    settings = Settings(
        data=DataSettings(source="folder", size=(32, 32), views=2),
        trainer=TrainerSettings(epochs=3, batch_size=8, accelerator="cpu"),
        executor=ExecutorSettings(name="local", workers=2, threads=1),
    )
    found = load_images("folder", images, size=(32, 32), cache=folder / "store")
    return build_task(settings, found, make_splits(found.index), cache=folder / "cache")


@contextmanager
def _local(task: Task, workers: int = 2) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(task, cache=task.cache._root.parent, workers=workers)
    pids = [w.process.pid for w in executor._workers]
    try:
        yield executor
    finally:
        executor.close()
        for pid in pids:
            assert pid is not None
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def _next(executor: Executor, seconds: float = 60) -> Event:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (event := executor.poll(0.2)) is not None:
            return event
    pytest.fail(f"no event in {seconds} s")


def _run(
    executor: Executor, jobs: list[Job], decide: Callable[[int, EpochReport], bool] = lambda slot, report: True
) -> dict[int, Finished | Failed]:
    """All jobs through an executor, as the driver would."""
    waiting, ended = list(jobs), dict[int, Finished | Failed]()
    running = 0
    while waiting or running:
        while waiting and running < executor.capacity:
            executor.submit(waiting.pop(0))
            running += 1
        event = _next(executor)
        if isinstance(event, Reported):
            executor.answer(event.slot, decide(event.slot, event.report))
        else:
            ended[event.slot] = event
            running -= 1
    return ended


def _curves(ended: dict[int, Finished | Failed]) -> dict[int, list[tuple[float, ...]]]:
    curves = {}
    for slot, event in sorted(ended.items()):
        assert isinstance(event, Finished), event
        curves[slot] = [(r.step, r.value, *r.metrics.values()) for r in event.result.curve]
    return curves


def test_workers_give_the_trials_that_this_process_gives(task: Task) -> None:
    def decide(slot: int, report: EpochReport) -> bool:
        return slot != 1 or report.step < 1

    inline = InlineExecutor(task)
    try:
        here = _run(inline, JOBS, decide)
    finally:
        inline.close()
    with _local(task) as executor:
        there = _run(executor, JOBS, decide)
    assert _curves(there) == _curves(here)
    assert [len(curve) for curve in _curves(there).values()] == [3, 2, 3, 3]
    pruned = there[1]
    assert isinstance(pruned, Finished) and pruned.result.stopped == "pruned"
    assert pruned.result.threads == 1


def test_a_slow_trial_blocks_no_other(task: Task) -> None:
    with _local(task) as executor:
        executor.submit(JOBS[0])
        first = _next(executor)
        assert isinstance(first, Reported)  # and gets no answer yet
        others = _run_beside(executor, JOBS[1:])
        assert sorted(others) == [1, 2, 3]
        executor.answer(0, False)
        ended = _next(executor)
        assert isinstance(ended, Finished) and ended.result.stopped == "pruned"


def _run_beside(executor: Executor, jobs: list[Job]) -> dict[int, Finished | Failed]:
    ended = {}
    for job in jobs:
        executor.submit(job)
        while not isinstance(event := _next(executor), Finished):
            assert isinstance(event, Reported), event
            executor.answer(event.slot, True)
        ended[event.slot] = event
    return ended


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "SIGKILL; the system may have run out of memory"), (signal.SIGSEGV, "SIGSEGV")],
)
def test_a_worker_that_dies_costs_its_trial_and_is_replaced(task: Task, number: signal.Signals, words: str) -> None:
    with _local(task, workers=1) as executor:
        executor.submit(JOBS[0])
        assert isinstance(_next(executor), Reported)
        dead = executor._workers[0].process.pid
        assert dead is not None
        os.kill(dead, number)
        lost = _next(executor)
        assert isinstance(lost, Failed) and lost.slot == 0
        assert lost.traceback == f"WorkerDied: worker process {dead} was ended by {words}"
        again = _run(executor, JOBS[:2])
        assert all(isinstance(event, Finished) for event in again.values())
        assert executor._workers[0].process.pid != dead


def test_an_error_in_a_trial_is_told_and_the_worker_lives(task: Task) -> None:
    with _local(task, workers=1) as executor:
        worker = executor._workers[0].process.pid
        ended = _run(executor, [Job(0, TrialParams("no such optimizer", 1.0, 8), 0), *JOBS[1:2]])
        failed = ended[0]
        assert isinstance(failed, Failed) and "no such optimizer" in failed.traceback
        assert isinstance(ended[1], Finished)
        assert executor._workers[0].process.pid == worker


def test_a_cancelled_trial_gives_no_event_and_frees_its_worker(task: Task) -> None:
    with _local(task, workers=1) as executor:
        executor.submit(JOBS[2])
        assert isinstance(_next(executor), Reported)
        executor.cancel(2)
        executor.submit(JOBS[1])
        ended = _run_submitted(executor)
        assert isinstance(ended, Finished) and ended.slot == 1


def _run_submitted(executor: Executor) -> Event:
    while isinstance(event := _next(executor), Reported):
        executor.answer(event.slot, True)
    return event


def test_workers_end_when_their_driver_is_killed(task: Task) -> None:
    executor = LocalExecutor(task, cache=task.cache._root.parent, workers=2)
    executor.submit(JOBS[2])
    assert isinstance(_next(executor), Reported)
    for worker in executor._workers:
        worker.pipe.close()  # what the system does with the pipes of a process that is killed
    for worker in executor._workers:
        worker.process.join(30)
        assert worker.process.exitcode == 0
