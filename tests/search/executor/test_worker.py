"""The one loop of every worker, and which of its messages still count; trials are played, not trained."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.errors import TrialCancelledError
from search.executor.inline import InlineExecutor
from search.executor.protocol import Event, Failed, Finished, Job, Refit, Refitted, Reported
from search.executor.worker import WorkerHandle, queue_channel, serve_jobs
from search.trial.result import EpochReport, TrialParams, TrialResult

RESULT = TrialResult(0.5, 1.0, {}, (), 0.0, 0.0, None)
PARAMS = TrialParams("sgd", 1.0, 0)
Play = Callable[..., TrialResult]


@pytest.fixture
def plays(monkeypatch: pytest.MonkeyPatch) -> list[Play]:
    """What the next trials do, in order."""
    waiting: list[Play] = []

    def run_trial(*_: Any, report: Any, cancelled: Any, on_note: Any, **__: Any) -> TrialResult:
        return waiting.pop(0)(report, cancelled, on_note)

    monkeypatch.setattr("search.trial.training.run_trial", run_trial)
    return waiting


@pytest.fixture
def executor(plays: list[Play], notes: list[str]) -> Iterator[InlineExecutor]:
    found = InlineExecutor(object(), on_note=notes.append)  # type: ignore[arg-type]
    yield found
    found.close()
    assert not found._thread.is_alive()


@pytest.fixture
def notes() -> list[str]:
    return []


def _report(number: int) -> EpochReport:
    return EpochReport(number, 0, number, 0.5, 1.0, {}, 0.0)


def _one_epoch(report: Any, cancelled: Any, on_note: Any) -> TrialResult:
    report(_report(0))
    return RESULT


def _event(executor: InlineExecutor) -> Event:
    event = executor.poll(10)
    assert event is not None
    return event


def test_a_refit_ends_with_its_event_or_with_what_it_died_of(
    executor: InlineExecutor, plays: list[Play], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def keep_network(_: Any, params: Any, seed: int, *, fold: Any, checkpoint: Path, cancelled: Any) -> None:
        asked.append((params, seed, fold, checkpoint))
        if fold == 1:
            raise MemoryError("too large")

    monkeypatch.setattr("search.trial.training.keep_network", keep_network)
    executor.close()
    executor = InlineExecutor(object())  # type: ignore[arg-type]
    for slot, fold in enumerate((None, 1)):
        executor.submit(Refit(slot, PARAMS, 7, tmp_path, fold))
        event = _event(executor)
        assert event.slot == slot and isinstance(event, Refitted if fold is None else Failed)
    executor.close()
    assert asked == [(PARAMS, 7, None, tmp_path), (PARAMS, 7, 1, tmp_path)]


def test_what_a_trial_dies_of_takes_neither_the_worker_nor_the_study_along(
    executor: InlineExecutor, plays: list[Play], notes: list[str]
) -> None:
    def dies(report: Any, cancelled: Any, on_note: Any) -> TrialResult:
        on_note("a line")
        raise EOFError("a cut file, not a closed channel")

    plays += [dies, _one_epoch]
    executor.submit(Job(0, PARAMS, 0))
    failed = _event(executor)
    assert isinstance(failed, Failed) and "a cut file" in failed.traceback and notes == ["a line"]
    executor.submit(Job(1, PARAMS, 0))
    assert isinstance(_event(executor), Reported)
    executor.answer(1, "train")
    assert _event(executor) == Finished(1, RESULT)


def test_a_job_follows_one_that_was_cancelled_while_it_waited_for_its_verdict(
    executor: InlineExecutor, plays: list[Play]
) -> None:
    plays += [_one_epoch, _one_epoch]
    executor.submit(Job(0, PARAMS, 0))
    assert isinstance(_event(executor), Reported)
    executor.cancel(0)
    executor.answer(0, "train")  # too late: it must not become the verdict of another job
    executor.submit(Job(1, PARAMS, 0))
    assert _event(executor) == Reported(1, _report(0))
    executor.answer(1, "stop")
    assert _event(executor) == Finished(1, RESULT)


def test_a_cancelled_job_stops_at_its_next_batch_and_gives_no_event(
    executor: InlineExecutor, plays: list[Play]
) -> None:
    training, heard = threading.Event(), threading.Event()

    def trains(report: Any, cancelled: Any, on_note: Any) -> TrialResult:
        training.set()
        while not cancelled():
            pass
        heard.set()
        raise TrialCancelledError

    plays += [trains]
    executor.submit(Job(0, PARAMS, 0))
    assert training.wait(10)
    executor.cancel(0)
    assert heard.wait(10) and executor.poll(0.1) is None


def test_a_cancellation_that_crosses_the_jobs_own_end_ends_nothing_else(plays: list[Play]) -> None:
    to_worker: queue.Queue[object] = queue.Queue()
    to_driver: queue.Queue[object] = queue.Queue()
    handle = WorkerHandle(queue_channel(to_driver, to_worker), on_note=print)
    plays += [lambda *_: RESULT, _one_epoch]
    handle.submit(Job(0, PARAMS, 0))
    handle.cancel()  # the first job does not look: it has ended by then
    handle.submit(Job(1, PARAMS, 0))
    handle.answer("train")
    to_worker.put(None)
    serve_jobs(queue_channel(to_worker, to_driver), lambda note: object())  # type: ignore[arg-type, return-value]
    events = [handle.take(to_driver.get()) for _ in range(to_driver.qsize())]
    assert [e for e in events if e is not None] == [Reported(1, _report(0)), Finished(1, RESULT)]
    assert handle.idle


def test_the_task_is_built_with_the_first_job_and_a_failure_to_build_it_is_that_jobs(plays: list[Play]) -> None:
    to_worker: queue.Queue[object] = queue.Queue()
    to_driver: queue.Queue[object] = queue.Queue()
    built = []

    def build(note: Callable[[str], None]) -> Any:
        built.append(len(built))
        if len(built) == 1:
            raise OSError("no space left")
        return object()

    plays += [lambda *_: RESULT] * 2
    for item in (Job(0, PARAMS, 0), Job(1, PARAMS, 0), Job(2, PARAMS, 0), None):
        to_worker.put(item)
    serve_jobs(queue_channel(to_worker, to_driver), build)
    handle = WorkerHandle(queue_channel(to_driver, to_worker), on_note=print)
    events = [e for _ in range(to_driver.qsize()) if (e := handle.take(to_driver.get())) is not None]
    assert [type(e) for e in events] == [Failed, Finished, Finished] and built == [0, 1]
    with pytest.raises(TypeError, match="a worker sent 'nonsense'"):
        handle.take("nonsense")


def test_a_driver_that_is_gone_ends_the_worker_in_the_middle_of_a_trial(plays: list[Play]) -> None:
    to_worker: queue.Queue[object] = queue.Queue()
    to_driver: queue.Queue[object] = queue.Queue()
    plays += [_one_epoch]
    to_worker.put(Job(0, PARAMS, 0))
    to_worker.put(None)  # in place of the verdict
    serve_jobs(queue_channel(to_worker, to_driver), lambda note: object())  # type: ignore[arg-type, return-value]
    assert to_driver.qsize() == 2, "it began and reported, and nothing after"


def test_a_thread_that_has_died_ends_the_search_instead_of_letting_it_wait_for_ever(
    executor: InlineExecutor, plays: list[Play], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a trial dies of is its own; this is of the loop around it."""

    def fails() -> None:
        raise OSError("no memory to give back")

    monkeypatch.setattr("lightning_modules.training.allocator.give_back_freed_memory", fails)
    executor.close()
    again = InlineExecutor(object())  # type: ignore[arg-type]
    plays.append(_one_epoch)
    again.submit(Job(0, PARAMS, seed=0))
    assert isinstance(again.poll(10), Reported)
    again.answer(0, "train")
    assert isinstance(again.poll(10), Finished)
    again._thread.join(timeout=10)
    with pytest.raises(RuntimeError, match="the thread that trains has ended") as raised:
        again.poll(0)
    assert isinstance(raised.value.__cause__, OSError)
