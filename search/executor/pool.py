"""What executors of several workers share: who hangs and is ended, and whose events count."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from search.executor.protocol import Event, Job, Refit
from search.executor.worker import Channel, ChannelClosedError, WorkerHandle
from search.settings.schema import Settings
from search.trial.result import Verdict

__all__ = ["DYING", "STARTING_SECONDS", "PoolWorker", "WorkerPool"]

DYING = suppress(ChannelClosedError)  # the worker died just now: `poll` finds that out and reports its job as failed
_LEAST_GRACE_SECONDS = 10.0
STARTING_SECONDS = 120.0
"""Of a worker that imports torch and builds its task on a busy machine."""


class PoolWorker(WorkerHandle):
    """A worker that may hang.

    Attributes:
        ran: seconds since its job began, or will have begun at the latest.
        silent: seconds since it was heard of.
        started: whether it has begun a job before.
        limited: whether `search.trial_seconds` limits its job.
        ended: why it was ended.
    """

    def __init__(self, channel: Channel, on_note: Callable[[str], None]) -> None:
        super().__init__(channel, on_note)
        self.ran = self.silent = 0.0
        self.started, self.limited, self.ended = False, True, ""

    def submit(self, job: Job | Refit) -> None:
        """See `WorkerHandle.submit`."""
        self.limited = isinstance(job, Job)
        self.ran = self.silent = 0.0 if self.started else -STARTING_SECONDS
        super().submit(job)

    def began(self) -> None:
        """See `WorkerHandle.began`."""
        self.ran, self.started = 0.0, True


_Worker = TypeVar("_Worker", bound=PoolWorker)


class WorkerPool(ABC, Generic[_Worker]):
    """Half an executor: what does not depend on where its workers are.

    Args:
        on_note: called with a worker's line for the user, once a line.
    """

    def __init__(self, settings: Settings, on_note: Callable[[str], None]) -> None:
        self._on_note = on_note
        self._noted: set[str] = set()
        self._events: deque[Event] = deque()
        self._workers: list[_Worker] = []
        self._stillborn = 0  # workers in a row that ended before they did anything
        limit = settings.search.trial_seconds
        # A trial that is over its time stops itself at its next batch. One that hangs comes to none.
        self._longest = math.inf if limit is None else limit + max(limit, _LEAST_GRACE_SECONDS)
        self._silence = settings.executor.silence_seconds
        self._looked = time.monotonic()

    def poll(self, timeout: float) -> Event | None:
        """See `Executor.poll`."""
        if not self._events:
            self._receive(timeout)
        return self._events.popleft() if self._events else None

    def answer(self, slot: int, verdict: Verdict) -> None:
        """See `Executor.answer`."""
        for worker in self._workers:
            if worker.slot == slot:
                with DYING:
                    worker.answer(verdict)

    def cancel(self, slot: int) -> None:
        """See `Executor.cancel`."""
        for worker in self._workers:
            if worker.slot == slot:
                with DYING:
                    worker.cancel()
        self._events = deque(e for e in self._events if e.slot != slot)

    @abstractmethod
    def _receive(self, timeout: float) -> None:
        """Wait for something to happen and make events of what workers say; calls `_end_overdue`."""

    @abstractmethod
    def _name(self, worker: _Worker) -> str:
        """The worker in words."""

    @abstractmethod
    def _end(self, worker: _Worker) -> None:
        """End a worker that hangs; `ended` says why."""

    def _note(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self._on_note(line)

    def _end_overdue(self, most: float) -> None:
        """End the workers that hang; at most `most` seconds are counted since the last call.

        Where it was longer this process was stopped (Ctrl-Z), and its workers may have been with it.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, most), now
        for worker in [w for w in self._workers if not w.idle]:
            worker.ran, worker.silent = worker.ran + passed, worker.silent + passed
            if worker.slot is not None and worker.limited and worker.ran > self._longest:
                worker.ended = (
                    f"TrialOvertimeError: hung for {self._longest:g} s, over search.trial_seconds; its worker was ended"
                )
            elif worker.silent > self._silence and not worker.channel.waits():
                worker.ended = (
                    f"WorkerSilent: {self._name(worker)} gave no sign of life for {self._silence:g} s "
                    "(executor.silence_seconds), and was ended"
                )
            if worker.ended:
                self._end(worker)
