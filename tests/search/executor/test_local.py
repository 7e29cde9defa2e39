"""Worker processes: the same trials as in this process, and whatever kills one costs one attempt."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.images.splits import make_splits
from lightning_modules.images.store import load_images
from search.executor.inline import InlineExecutor
from search.executor.local import LocalExecutor, _epitaph
from search.executor.protocol import Event, Executor, Failed, Finished, Job, Refit, Reported
from search.executor.registry import Workers, early_processes
from search.settings.schema import DataSettings, ExecutorSettings, Settings, TrainerSettings
from search.trial.result import EpochReport, TrialParams, Verdict
from search.trial.task import Task, build_task
from search.trial.training import trial_network

pytestmark = pytest.mark.slow  # real worker processes

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
        executor=ExecutorSettings(name="local", workers=2, threads=1, silence_seconds=5),
    )
    found = load_images("folder", images, size=(32, 32), cache=folder / "store")
    return build_task(settings, found, make_splits(found.index), cache=folder / "cache")


@pytest.fixture(scope="module")
def pool(task: Task) -> Iterator[LocalExecutor]:
    """Two workers for all tests: to start one takes seconds."""
    executor = LocalExecutor(task, cache=task.cache._root.parent, workers=2)
    yield executor
    executor.close()


def _next(executor: Executor, seconds: float = 180) -> Event:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (event := executor.poll(0.2)) is not None:
            return event
    pytest.fail(f"no event in {seconds} s")


def _run(
    executor: Executor, jobs: list[Job], decide: Callable[[int, EpochReport], Verdict] = lambda slot, report: "train"
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


def test_workers_give_the_trials_that_this_process_gives(task: Task, pool: LocalExecutor) -> None:
    def decide(slot: int, report: EpochReport) -> Verdict:
        return "train" if slot != 1 or report.step < 1 else "stop"

    inline = InlineExecutor(task)
    try:
        here = _run(inline, JOBS, decide)
    finally:
        inline.close()
    there = _run(pool, JOBS, decide)
    assert _curves(there) == _curves(here)
    assert [len(curve) for curve in _curves(there).values()] == [3, 2, 3, 3]
    pruned = there[1]
    assert isinstance(pruned, Finished) and pruned.result.stopped == "pruned"
    assert pruned.result.threads == 1


def test_processes_that_were_started_early_become_the_workers(task: Task) -> None:
    with early_processes(task.settings) as started:
        assert len(started) == 2
        started[0].process.kill()  # before it has its plan
        started[0].process.join()
        workers = Workers(task, print, started)
        executor = workers()
        assert isinstance(executor, LocalExecutor)
        taken = [worker.process for worker in executor._workers]
        assert len(taken) == 2 and all(process.is_alive() for process in taken)
        assert [one.process in taken for one in started] == [False, True]
        assert all(isinstance(event, Finished) for event in _run(executor, JOBS[1:3]).values())
        workers.close()
        again = workers()  # with processes of its own
        assert isinstance(again, LocalExecutor)
        assert not {w.process for w in again._workers} & {one.process for one in started}
        workers.close()
    assert not any(one.process.is_alive() for one in started)


@pytest.mark.parametrize(("name", "processes"), [("local", 2), ("inline", 0)])
def test_processes_that_were_started_early_end_unused(task: Task, name: str, processes: int) -> None:
    settings = replace(task.settings, executor=replace(task.settings.executor, name=name))
    with pytest.raises(InputError), early_processes(settings) as started:
        assert len(started) == processes and all(one.process.is_alive() for one in started)
        raise InputError("no such image")
    assert not any(one.process.is_alive() for one in started)


def test_a_slow_trial_blocks_no_other(pool: LocalExecutor) -> None:
    pool.submit(JOBS[0])
    first = _next(pool)
    assert isinstance(first, Reported)  # and gets no answer yet
    for job in JOBS[1:]:
        pool.submit(job)
        ended = _end_of_next(pool)
        assert isinstance(ended, Finished) and ended.slot == job.slot
    pool.answer(0, "stop")
    ended = _next(pool)
    assert isinstance(ended, Finished) and ended.result.stopped == "pruned"


def _end_of_next(executor: Executor) -> Event:
    while isinstance(event := _next(executor), Reported):
        executor.answer(event.slot, "train")
    return event


def test_an_error_in_a_trial_is_reported_and_the_worker_lives(pool: LocalExecutor) -> None:
    before = [w.process.pid for w in pool._workers]
    ended = _run(pool, [Job(0, TrialParams("no such optimizer", 1.0, 8), 0), *JOBS[1:2]])
    failed = ended[0]
    assert isinstance(failed, Failed) and "no such optimizer" in failed.traceback
    assert isinstance(ended[1], Finished)
    assert [w.process.pid for w in pool._workers] == before


def test_a_cancelled_trial_gives_no_event_and_frees_its_worker(pool: LocalExecutor) -> None:
    for slot in (2, 0):
        pool.submit(JOBS[slot])
    reported = {_next(pool).slot for _ in range(2)}
    assert reported == {0, 2}
    pool.cancel(2)
    pool.submit(JOBS[1])  # on the worker that slot 2 held: slot 0 still waits for its answer
    ended = _end_of_next(pool)
    assert isinstance(ended, Finished) and ended.slot == 1
    pool.answer(0, "stop")
    assert isinstance(_next(pool), Finished)


def test_a_worker_that_is_killed_costs_its_trial_and_is_replaced(pool: LocalExecutor) -> None:
    pool.submit(JOBS[0])
    assert isinstance(_next(pool), Reported)
    dead = next(w.process.pid for w in pool._workers if w.slot == 0)
    assert dead is not None
    os.kill(dead, signal.SIGKILL)
    lost = _next(pool)
    assert isinstance(lost, Failed) and lost.slot == 0
    words = f"WorkerDied: worker process {dead} was ended by SIGKILL; the system may have run out of memory"
    assert lost.traceback == words
    again = _run(pool, JOBS[:2])
    assert all(isinstance(event, Finished) for event in again.values())
    assert dead not in [w.process.pid for w in pool._workers]


def test_a_worker_that_hangs_is_ended_and_its_trial_fails(pool: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.submit(JOBS[0])
    assert isinstance(_next(pool, 240), Reported)
    hung = next(w.process.pid for w in pool._workers if w.slot == 0)
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    monkeypatch.setattr(pool, "_longest", 0.5)  # what search.trial_seconds decides
    lost = _next(pool)
    monkeypatch.setattr(pool, "_longest", math.inf)
    assert isinstance(lost, Failed) and lost.slot == 0
    assert lost.traceback == "TrialOvertimeError: hung for 0.5 s, over search.trial_seconds; its worker was ended"
    assert not Path(f"/proc/{hung}").exists()
    assert isinstance(_run(pool, JOBS[:1])[0], Finished)


def test_a_worker_that_gives_no_sign_of_life_is_ended_and_its_trial_fails(pool: LocalExecutor) -> None:
    pool.submit(JOBS[0])
    assert isinstance(_next(pool, 240), Reported)
    still = next(w.process.pid for w in pool._workers if w.slot == 0)
    assert still is not None
    os.kill(still, signal.SIGSTOP)
    lost = _next(pool)
    assert isinstance(lost, Failed) and lost.slot == 0
    words = (
        f"WorkerSilent: worker process {still} gave no sign of life for 5 s (executor.silence_seconds), and was ended"
    )
    assert lost.traceback == words
    assert not Path(f"/proc/{still}").exists()
    assert isinstance(_run(pool, JOBS[:1])[0], Finished)


def test_a_driver_that_was_stopped_takes_no_worker_for_a_silent_one(
    pool: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z stops all of them: when they go on, the last sign of life is old and the trial has long begun."""
    pool.submit(JOBS[0])
    assert isinstance(_next(pool, 240), Reported)
    workers = [w.process.pid for w in pool._workers]
    monkeypatch.setattr(pool, "_longest", 5.0)
    for pid in workers:
        os.kill(pid or 0, signal.SIGSTOP)
    time.sleep(6)
    for pid in workers:
        os.kill(pid or 0, signal.SIGCONT)
    assert pool.poll(0.2) is None
    pool.answer(0, "stop")
    assert isinstance(_next(pool), Finished)
    assert [w.process.pid for w in pool._workers] == workers


def test_close_leaves_no_process_and_a_dead_driver_ends_its_workers(task: Task) -> None:
    executor = LocalExecutor(task, cache=task.cache._root.parent, workers=2)
    first, second = executor._workers
    executor.submit(JOBS[2])
    assert isinstance(_next(executor), Reported)
    first.pipe.close()  # what the system does with the pipes of a process that is killed
    first.process.join(30)
    assert first.process.exitcode == 0
    executor._workers = [second]
    os.kill(second.process.pid or 0, signal.SIGSEGV)
    second.process.join(30)
    assert _epitaph(second.process) == f"WorkerDied: worker process {second.process.pid} was ended by SIGSEGV"
    executor.close()
    assert not multiprocessing.active_children() or all(
        child not in (first.process, second.process) for child in multiprocessing.active_children()
    )


def test_refits_of_workers_are_those_of_this_process(task: Task, pool: LocalExecutor, tmp_path: Path) -> None:
    for slot in (0, 1):
        pool.submit(Refit(slot, JOBS[slot].params, 7, tmp_path / f"slot-{slot}.pt", None))
    assert {_next(pool).slot, _next(pool).slot} == {0, 1}
    for slot in (0, 1):
        params, file = JOBS[slot].params, tmp_path / f"slot-{slot}.pt"
        kept = trial_network(task, params, 7, 3, fold=None, checkpoint=file, cancelled=lambda: True)
        other = trial_network(task, params, 7, 3, fold=None).state_dict()
        assert all(torch.equal(part, other[name]) for name, part in kept.state_dict().items())
