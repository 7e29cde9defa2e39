"""A worker, both ends of it: `serve_jobs` trains one job after another, `WorkerHandle` is what the driver holds of it.

They talk over a channel: a pipe to another process (`local`), or two queues to a thread of this one (`inline`). An
actor of a cluster would run `serve_jobs` over queues as well.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_modules.images.index import ImageIndex
from lightning_modules.images.splits import Splits
from search.errors import TrialCancelledError
from search.executor.protocol import Event, Failed, Finished, Job, Refit, Refitted, Reported
from search.settings.schema import Settings
from search.trial.result import EpochReport, Verdict

if TYPE_CHECKING:
    from search.trial.task import Task

__all__ = [
    "Channel",
    "ChannelClosedError",
    "WorkerHandle",
    "WorkerPlan",
    "pipe_channel",
    "queue_channel",
    "serve",
    "serve_jobs",
    "serve_plan",
]

_SIGNS = 5  # of life, in `executor.silence_seconds`


@dataclass(frozen=True)
class _Answer:
    """Driver to worker: train on, stop as pruned, or wait."""

    verdict: Verdict


@dataclass(frozen=True)
class _Cancel:
    """Driver to worker: stop the job at its next batch."""


@dataclass(frozen=True)
class _Began:
    """Worker to driver: the job's training begins; the worker has started and has its task."""


@dataclass(frozen=True)
class _Idle:
    """Worker to driver: the job was cancelled."""


@dataclass(frozen=True)
class _Alive:
    """Worker to driver: the process runs, whatever its trial does."""


@dataclass(frozen=True)
class _Note:
    """Worker to driver: a line for the user."""

    line: str


class ChannelClosedError(Exception):
    """The other end is closed or gone: not an error of a trial, which may raise `EOFError` of its own."""


@dataclass(frozen=True)
class Channel:
    """One end of a line on which messages keep their order; each of these may raise `ChannelClosedError`.

    Attributes:
        send: sends a message and waits for no reader.
        receive: the next message; waits for one.
        waits: whether there is something to receive, be it that the line is closed.
    """

    send: Callable[[object], None]
    receive: Callable[[], object]
    waits: Callable[[], bool]


def pipe_channel(pipe: Connection) -> Channel:
    """An end of a pipe between processes."""

    sending = threading.Lock()  # a worker's signs of life come from a thread

    @contextmanager
    def closing() -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            raise ChannelClosedError from error

    def send(message: object) -> None:
        with sending, closing():
            pipe.send(message)

    return Channel(send, closing()(pipe.recv), closing()(pipe.poll))


def queue_channel(inbox: queue.Queue[object], outbox: queue.Queue[object]) -> Channel:
    """An end of two queues between threads; None in the inbox closes it."""

    def receive() -> object:
        if (message := inbox.get()) is None:
            raise ChannelClosedError
        return message

    return Channel(outbox.put, receive, lambda: not inbox.empty())


def serve_jobs(channel: Channel, build_task: Callable[[Callable[[str], None]], Task]) -> None:
    """Train the jobs that come, report each epoch of a trial and wait for its verdict; returns when the channel closes.

    Args:
        build_task: called once, before the first job, with what takes a line for the user.
    """
    # After `serve` has set the environment.
    from lightning_modules.training.allocator import give_back_freed_memory
    from search.trial.training import keep_network, run_trial

    task: Task | None = None

    def note(line: str) -> None:
        channel.send(_Note(line))

    def cancelled() -> bool:
        return channel.waits() and isinstance(channel.receive(), _Cancel)

    def report(epoch: EpochReport) -> Verdict:
        channel.send(Reported(job.slot, epoch))
        if not isinstance(message := channel.receive(), _Answer):
            raise TrialCancelledError
        return message.verdict

    try:
        while True:
            message = channel.receive()
            if not isinstance(message, Job | Refit):  # a cancellation that crossed the job's own end
                continue
            job = message
            try:
                task = task or build_task(note)
                network = job.params.network
                own = task if network is None else task.of(network)
                channel.send(_Began())
                if isinstance(job, Refit):
                    keep_network(
                        own, job.params, job.seed, fold=job.fold, checkpoint=job.checkpoint, cancelled=cancelled
                    )
                    ended: Event = Refitted(job.slot)
                else:
                    result = run_trial(
                        own, job.params, job.seed, report=report, cancelled=cancelled, checkpoint=job.checkpoint,
                        reported=job.reported, on_note=note,
                    )  # fmt: skip
                    ended = Finished(job.slot, result)
            except TrialCancelledError:
                channel.send(_Idle())
            except ChannelClosedError:
                raise
            except Exception:  # whatever a trial dies of must not take the worker along
                channel.send(Failed(job.slot, traceback.format_exc()))
            else:
                channel.send(ended)
            give_back_freed_memory()
    except ChannelClosedError:
        return


def _show_life(channel: Channel, pause: float) -> None:
    """Send a sign of life each `pause` seconds, until the channel closes."""
    waiting = threading.Event()
    with suppress(ChannelClosedError):
        while not waiting.wait(pause):
            channel.send(_Alive())


class WorkerHandle:
    """What the driver's side knows of a worker, and which of the worker's messages still count.

    Attributes:
        slot: of the job that counts, None where there is none.
        cancelled: whether a job that no longer counts may still be in its last batch.
    """

    def __init__(self, channel: Channel, on_note: Callable[[str], None]) -> None:
        self.channel = channel
        self._on_note = on_note
        self.slot: int | None = None
        self.cancelled = False

    @property
    def idle(self) -> bool:
        """Whether a job would begin at once."""
        return self.slot is None and not self.cancelled

    def submit(self, job: Job | Refit) -> None:
        """Give it a job; the job follows one that was cancelled."""
        self.slot = job.slot
        self.channel.send(job)

    def answer(self, verdict: Verdict) -> None:
        """Answer its last report."""
        self.channel.send(_Answer(verdict))

    def cancel(self) -> None:
        """Stop its job at the next batch; no message of the job counts any more."""
        self.slot, self.cancelled = None, True
        self.channel.send(_Cancel())

    def take(self, message: object) -> Event | None:
        """The event that a message is, None where the driver is to hear of none.

        Raises:
            TypeError: not a message of `serve_jobs`.
        """
        if isinstance(message, _Note):
            self._on_note(message.line)
        elif isinstance(message, _Began):
            self.began()
        elif isinstance(message, _Alive):
            return None
        elif self.cancelled:  # the job may have ended before it heard of the cancelling; a report gets no answer
            self.cancelled = isinstance(message, Reported)
        elif isinstance(message, Reported | Finished | Failed | Refitted):
            if not isinstance(message, Reported):
                self.slot = None
            return message
        elif not isinstance(message, _Idle):
            raise TypeError(f"a worker sent {message!r}")
        return None

    def began(self) -> None:
        """Its job's training begins."""


@dataclass(frozen=True)
class WorkerPlan:
    """All that a worker process needs to build the driver's task again.

    Attributes:
        pixels: file of the uint8 (N, H, W, C) pixels, or the pixels where they lie in no file.
        device: what CUDA_VISIBLE_DEVICES is to be in the worker, None to leave it.
        start: folder of the model that trials start from, None for `model.weights`.
    """

    settings: Settings
    index: ImageIndex
    pixels: Path | NDArray[np.uint8]
    splits: Splits
    cache: Path
    threads: int
    device: str | None
    start: Path | None = None


def serve(pipe: Connection, settings: Settings, device: str | None, plan: WorkerPlan | None = None) -> None:
    """Main function of a worker process; returns when the driver closes the pipe or is gone.

    Args:
        device: see `WorkerPlan`.
        plan: None for a process that was started before the images were read: the plan is its first message, and what
            it needs is imported until then.
    """
    channel = pipe_channel(pipe)
    _begin(channel, settings, device)
    if plan is None:
        import search.trial.training  # noqa: F401

        try:
            message = channel.receive()
        except ChannelClosedError:
            return
        if not isinstance(message, WorkerPlan):
            raise TypeError(f"a worker's first message is its plan, got {message!r}")
        plan = message
    _serve_plan(channel, plan)


def serve_plan(channel: Channel, plan: WorkerPlan) -> None:
    """Build the driver's task again and train the jobs that come; returns when the channel closes."""
    _begin(channel, plan.settings, plan.device)
    _serve_plan(channel, plan)


def _begin(channel: Channel, settings: Settings, device: str | None) -> None:
    if device is not None:  # before CUDA is touched
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    pause = settings.executor.silence_seconds / _SIGNS
    threading.Thread(target=_show_life, args=(channel, pause), name="thawline-life", daemon=True).start()


def _serve_plan(channel: Channel, plan: WorkerPlan) -> None:
    import torch  # after the environment is set

    from lightning_modules.images.store import ImageSet
    from lightning_modules.training.allocator import keep_freed_memory
    from search.trial.task import build_task

    keep_freed_memory()
    torch.set_num_threads(plan.threads)

    def build(on_note: Callable[[str], None]) -> Task:
        pixels = np.load(plan.pixels, mmap_mode="r") if isinstance(plan.pixels, Path) else plan.pixels
        images = ImageSet(plan.index, pixels)
        return build_task(plan.settings, images, plan.splits, cache=plan.cache, start=plan.start, on_note=on_note)

    serve_jobs(channel, build)
