"""Trials in worker processes of this machine, which live as long as the study.

Workers are spawned, not forked (a fork of a process that has used threads or a GPU is unsound), and import torch and
Lightning once, not once a trial. Whatever a worker dies of (a signal, a segmentation fault, the system's
out-of-memory killer) costs the trial it was training; another takes its place. A worker that gives no sign of life
(`executor.silence_seconds`), or whose trial hangs (`search.trial_seconds`), is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import torch

from search.executor.pool import DYING, PoolWorker, WorkerPool
from search.executor.protocol import Failed, Job, Refit
from search.executor.worker import ChannelClosedError, WorkerPlan, pipe_channel, serve
from search.settings.schema import Settings
from search.trial.task import Task, choose_device

__all__ = ["LocalExecutor", "StartedProcess", "end", "make", "start_processes"]

_CLOSING_SECONDS = 5.0
_MOST_STILLBORN = 3
_MOST_WORKERS = 4  # more trials at a time are asked for with less known of those before


@dataclass(frozen=True)
class StartedProcess:
    """A worker process and the driver's end of its pipe."""

    process: SpawnProcess
    pipe: Connection


class _Worker(PoolWorker):
    def __init__(self, process: SpawnProcess, pipe: Connection, on_note: Callable[[str], None]) -> None:
        super().__init__(pipe_channel(pipe), on_note)
        self.process, self.pipe = process, pipe


class LocalExecutor(WorkerPool[_Worker]):
    """Executor of persistent worker processes.

    Args:
        workers: how many processes; each gets its share of the cores, and one of the GPUs in turn. None is one a GPU,
            or one a core up to 4: two trials of one thread each train 1.4 times as many images as one of two threads.
        on_note: called with a worker's line for the user, once a line.
        started: processes that wait for their plan; they become the first workers.
    """

    def __init__(
        self,
        task: Task,
        *,
        cache: Path,
        workers: int | None = None,
        on_note: Callable[[str], None] = lambda _: None,
        started: Sequence[StartedProcess] = (),
    ) -> None:
        cores = len(os.sched_getaffinity(0))
        if workers is None:
            workers = _default_workers(task.device)
        if workers < 1:
            raise ValueError(f"workers must be 1 or more, got {workers}")
        super().__init__(task.settings, on_note)
        self._started = deque(started)
        self.capacity = workers
        pixels = task.images.pixels
        self._plan = WorkerPlan(
            settings=task.settings,
            index=task.index,
            pixels=Path(pixels.filename) if isinstance(pixels, np.memmap) and pixels.filename else np.asarray(pixels),
            splits=task.splits,
            cache=cache,
            threads=task.settings.executor.threads or max(1, cores // workers),
            device=None,
            start=task.start,
        )
        self._workers = [self._spawn(position) for position in range(workers)]

    def submit(self, job: Job | Refit) -> None:
        """See `Executor.submit`."""
        while (worker := next((w for w in self._workers if w.idle), None)) is None:
            self._receive(1.0)  # one that was cancelled is in its last batch
        with DYING:
            worker.submit(job)

    def close(self) -> None:
        """Close the pipes, which ends idle workers at once and busy ones after their batch; kill what stays."""
        for worker in self._workers:
            worker.pipe.close()
        deadline = time.monotonic() + _CLOSING_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def _spawn(self, position: int) -> _Worker:
        plan = self._plan
        if task_gpus := _gpus():
            plan = replace(plan, device=task_gpus[position % len(task_gpus)])
        while self._started:
            early = self._started.popleft()
            with suppress(OSError):  # it has died meanwhile
                early.pipe.send(plan)
                return _Worker(early.process, early.pipe, self._note)
        one = _start_process(position, plan.settings, plan.device, plan)
        return _Worker(one.process, one.pipe, self._note)

    def _receive(self, timeout: float) -> None:
        """Wait for something to happen; every pipe that has a message is read once."""
        self._end_overdue(timeout + 1.0)
        ready = wait([w.pipe for w in self._workers], timeout)
        for position, worker in enumerate(self._workers):
            if worker.pipe in ready:
                try:
                    message = worker.channel.receive()
                except ChannelClosedError:
                    self._replace(position, worker)
                    continue
                self._stillborn, worker.silent = 0, 0.0
                if (event := worker.take(message)) is not None:
                    self._events.append(event)

    def _name(self, worker: _Worker) -> str:
        return f"worker process {worker.process.pid}"

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()  # its pipe closes, which `_receive` finds

    def _replace(self, position: int, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join()
        if worker.slot is not None:
            self._events.append(Failed(worker.slot, worker.ended or _epitaph(worker.process)))
        else:
            self._stillborn += 1
            if self._stillborn > _MOST_STILLBORN:
                raise RuntimeError(f"workers end before they are given anything to do: {_epitaph(worker.process)}")
        self._workers[position] = self._spawn(position)


def make(task: Task, on_note: Callable[[str], None], started: Sequence[StartedProcess] = ()) -> LocalExecutor:
    """See `search.executor.registry`."""
    settings = task.settings
    cache, workers = settings.tracking.root / "cache", settings.executor.workers
    return LocalExecutor(task, cache=cache, workers=workers, on_note=on_note, started=started)


def start_processes(settings: Settings) -> list[StartedProcess]:
    """Start the processes of an executor to come: they import what training needs, then wait for their plan.

    On a machine with GPUs there are none: they would take memory there while the driver prepares.
    """
    device = choose_device(settings.trainer.accelerator)
    workers = settings.executor.workers or _default_workers(device)
    if device.type == "cuda" or _gpus():
        return []
    return [_start_process(position, settings, None) for position in range(workers)]


def end(started: Sequence[StartedProcess]) -> None:
    """End processes that were given no plan; those that were have ended with their executor."""
    for one in started:
        one.pipe.close()
        if one.process.is_alive():
            one.process.kill()
        one.process.join()


def _start_process(
    position: int, settings: Settings, device: str | None, plan: WorkerPlan | None = None
) -> StartedProcess:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, settings, device, plan)
    process = context.Process(target=serve, args=arguments, name=f"thawline-worker-{position}", daemon=True)
    # Ctrl-C in a terminal reaches every process of the group; what it means is for the driver to say. The mask is
    # inherited, so the worker is deaf to it from its first instruction on. The first start of multiprocessing's
    # resource tracker unblocks the signal, so it comes before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that its death closes the pipe
    return StartedProcess(process, ours)


def _default_workers(device: torch.device) -> int:
    return len(_gpus()) if device.type == "cuda" else min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


def _epitaph(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"WorkerDied: worker process {process.pid} ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
    return f"WorkerDied: worker process {process.pid} was ended by {name}{hint}"


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name, one entry a GPU."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
