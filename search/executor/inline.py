"""One trial at a time in this process, on a thread beside the driver.

A thread of its own, so that Ctrl-C reaches the driver at once and its bookkeeping is never inside a training step.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable

from search.errors import TrialCancelledError
from search.executor.protocol import Event, Failed, Finished, Job, Reported
from search.trial.result import EpochReport, Verdict
from search.trial.task import Task
from search.trial.training import run_trial

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """Executor of capacity 1 over a task that is already in memory.

    Args:
        task: what trials train on.
        on_note: called with a line for the user.
    """

    capacity = 1

    def __init__(self, task: Task, *, on_note: Callable[[str], None] = lambda _: None) -> None:
        self._task = task
        self._on_note = on_note
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._events: queue.Queue[Event] = queue.Queue()
        self._answers: queue.Queue[Verdict] = queue.Queue()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._work, name="thawline-trial", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        self._cancelled.clear()
        self._jobs.put(job)

    def poll(self, timeout: float) -> Event | None:
        """See `Executor.poll`."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def answer(self, slot: int, verdict: Verdict) -> None:
        """See `Executor.answer`."""
        self._answers.put(verdict)

    def cancel(self, slot: int) -> None:
        """See `Executor.cancel`."""
        self._cancelled.set()
        self._answers.put("stop")

    def close(self) -> None:
        """Cancel, then wait up to five seconds for the batch that is being trained."""
        self._cancelled.set()
        self._answers.put("stop")
        self._jobs.put(None)
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            slot = job.slot
            while not self._answers.empty():
                self._answers.get_nowait()

            def report(epoch: EpochReport, slot: int = slot) -> Verdict:
                self._events.put(Reported(slot, epoch))
                return self._answers.get()

            try:
                result = run_trial(
                    self._task,
                    job.params,
                    job.seed,
                    report=report,
                    cancelled=self._cancelled.is_set,
                    checkpoint=job.checkpoint,
                    told=job.told,
                    on_note=self._on_note,
                )
            except TrialCancelledError:
                continue
            except Exception:  # whatever a trial dies of must not take the study along
                self._events.put(Failed(slot, traceback.format_exc()))
            else:
                if not self._cancelled.is_set():
                    self._events.put(Finished(slot, result))
