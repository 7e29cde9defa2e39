"""One trial at a time in this process, on a thread beside the driver.

A thread of its own, so that Ctrl-C reaches the driver at once and its bookkeeping is never inside a training step.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from search.executor.protocol import Event, Job, Refit
from search.executor.worker import WorkerHandle, queue_channel, serve_jobs
from search.trial.result import Verdict
from search.trial.task import Task

__all__ = ["InlineExecutor", "make"]

_CLOSING_SECONDS = 5.0


class InlineExecutor:
    """Executor of capacity 1 over a task that is already in memory."""

    capacity = 1

    def __init__(self, task: Task, *, on_note: Callable[[str], None] = lambda _: None) -> None:
        self._to_worker: queue.Queue[object] = queue.Queue()
        self._from_worker: queue.Queue[object] = queue.Queue()
        self._worker = WorkerHandle(queue_channel(self._from_worker, self._to_worker), on_note)
        there = queue_channel(self._to_worker, self._from_worker)
        self._died: BaseException | None = None

        def serve() -> None:
            try:
                serve_jobs(there, lambda _: task)
            except BaseException as error:
                self._died = error

        self._thread = threading.Thread(target=serve, name="thawline-trial", daemon=True)
        self._thread.start()

    def submit(self, job: Job | Refit) -> None:
        """See `Executor.submit`."""
        self._worker.submit(job)

    def poll(self, timeout: float) -> Event | None:
        """See `Executor.poll`.

        Raises:
            RuntimeError: the thread has ended, of something that was no trial's.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self._from_worker.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                if self._died is not None:
                    raise RuntimeError("the thread that trains has ended") from self._died
                return None
            if (event := self._worker.take(message)) is not None:
                return event

    def answer(self, slot: int, verdict: Verdict) -> None:
        """See `Executor.answer`."""
        if self._worker.slot == slot:
            self._worker.answer(verdict)

    def cancel(self, slot: int) -> None:
        """See `Executor.cancel`."""
        if self._worker.slot == slot:
            self._worker.cancel()

    def close(self) -> None:
        """End the thread, after the batch that is being trained; wait up to five seconds for it."""
        self._to_worker.put(None)
        self._thread.join(timeout=_CLOSING_SECONDS)


def make(task: Task, on_note: Callable[[str], None]) -> InlineExecutor:
    """See `search.executor.registry`."""
    return InlineExecutor(task, on_note=on_note)
