"""Refits side by side: which are asked of the workers, in which order, and what becomes of those that fail."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.errors import TrialCancelledError
from search.executor.protocol import Event, Failed, Refit, Refitted
from search.outcome.side_by_side import train_side_by_side
from search.trial.files import TrialFiles, network_file
from search.trial.result import TrialParams


class _Workers:
    """Plays an executor, and what starts it."""

    def __init__(self, capacity: int = 2, lost: tuple[int, ...] = ()) -> None:
        self.capacity, self.lost = capacity, lost
        self.jobs: list[Refit] = []
        self.events: deque[Event] = deque()
        self.running = self.most = 0
        self.closed = self.started = False

    def __call__(self) -> _Workers:
        self.started = True
        return self

    def submit(self, job: Refit) -> None:
        self.jobs.append(job)
        self.running += 1
        self.most = max(self.most, self.running)
        self.events.append(Failed(job.slot, "out of memory") if len(self.jobs) - 1 in self.lost else Refitted(job.slot))

    def poll(self, timeout: float) -> Event | None:
        assert timeout < 1
        if not self.events:
            return None
        self.running -= 1
        return self.events.popleft()

    def close(self) -> None:
        self.closed = True


def _trial(slot: int, depth: int) -> Any:
    return SimpleNamespace(slot=slot, params=TrialParams("adam", 1.0, depth))


def _run(folder: Path, stopping: bool = False) -> Any:
    said: list[str] = []
    return SimpleNamespace(
        said=said,
        now=said.append,
        files=TrialFiles(folder),
        settings=SimpleNamespace(seed=0),
        task=SimpleNamespace(epoch_cost=lambda params: 10.0 - params.freeze_depth),
        stopping=lambda: stopping,
    )


WANTED = [(_trial(0, 4), None), (_trial(1, 2), None), (_trial(2, 6), None), (_trial(0, 4), 1)]


@pytest.mark.parametrize("lost", [(), (0,), (0, 1, 2, 3)])
def test_each_is_asked_for_once_the_dearest_first(tmp_path: Path, lost: tuple[int, ...]) -> None:
    workers = _Workers(lost=lost)
    run = _run(tmp_path)
    train_side_by_side(run, workers, WANTED)  # type: ignore[arg-type]
    assert run.said == [f"Refitting the winner's networks: {done} of 4" for done in range(5)]
    assert [(job.params.freeze_depth, job.fold) for job in workers.jobs] == [(2, None), (4, None), (4, 1), (6, None)]
    assert len({job.slot for job in workers.jobs}) == 4  # what an event names
    assert workers.most == 2 and workers.closed


def test_what_is_kept_is_not_trained_again(tmp_path: Path) -> None:
    for slot, fold in ((0, None), (2, None)):
        network_file(tmp_path / f"slot-{slot}.pt", fold).touch()
    workers = _Workers()
    train_side_by_side(_run(tmp_path), workers, WANTED)  # type: ignore[arg-type]
    assert [(job.params.freeze_depth, job.fold) for job in workers.jobs] == [(2, None), (4, 1)]


@pytest.mark.parametrize("count", [0, 1])
def test_for_one_network_no_worker_is_started(tmp_path: Path, count: int) -> None:
    workers = _Workers()
    train_side_by_side(_run(tmp_path), workers, WANTED[:count])  # type: ignore[arg-type]
    assert not workers.started and workers.closed


def test_one_worker_gains_nothing(tmp_path: Path) -> None:
    workers = _Workers(capacity=1)
    train_side_by_side(_run(tmp_path), workers, WANTED)  # type: ignore[arg-type]
    assert workers.jobs == [] and workers.closed


def test_a_stop_starts_no_more(tmp_path: Path) -> None:
    workers = _Workers()
    with pytest.raises(TrialCancelledError):
        train_side_by_side(_run(tmp_path, stopping=True), workers, WANTED)  # type: ignore[arg-type]
    assert workers.jobs == []
