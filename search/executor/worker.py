"""What runs in a worker process: rebuild the task once, then train one job after another until the pipe closes."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_modules.images.index import ImageIndex
from lightning_modules.images.splits import Splits
from search.executor.protocol import Failed, Finished, Job, Reported
from search.settings.schema import Settings
from search.trial.result import Verdict

__all__ = ["Answer", "Began", "Cancel", "Idle", "Note", "WorkerPlan", "serve"]


@dataclass(frozen=True)
class WorkerPlan:
    """All that a worker needs to build the driver's task again.

    Attributes:
        settings: all settings.
        index: what each image is.
        pixels: file of the uint8 (N, H, W, C) pixels, or the pixels where they lie in no file.
        splits: folds and test rows.
        cache: folder of the activations.
        threads: of this worker.
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


@dataclass(frozen=True)
class Answer:
    """Driver to worker: train on, stop as pruned, or wait."""

    verdict: Verdict


@dataclass(frozen=True)
class Began:
    """Worker to driver: the job's training begins; the worker has started and has its task."""


@dataclass(frozen=True)
class Cancel:
    """Driver to worker: stop the job at its next batch."""


@dataclass(frozen=True)
class Idle:
    """Worker to driver: the job was cancelled."""


@dataclass(frozen=True)
class Note:
    """Worker to driver: a line for the user."""

    line: str


def serve(pipe: Connection, plan: WorkerPlan) -> None:
    """Main function of a worker process; returns when the driver closes the pipe or is gone."""
    if plan.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = plan.device
    try:
        _serve(pipe, plan)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _serve(pipe: Connection, plan: WorkerPlan) -> None:
    # Imported here: the environment above must be set before CUDA is touched.
    import torch

    from lightning_modules.images.store import ImageSet
    from lightning_modules.training.allocator import keep_freed_memory
    from search.errors import TrialCancelledError
    from search.trial.result import EpochReport
    from search.trial.task import Task, build_task
    from search.trial.training import run_trial

    keep_freed_memory()
    torch.set_num_threads(plan.threads)
    task: Task | None = None

    def note(line: str) -> None:
        pipe.send(Note(line))

    def build() -> Task:
        pixels = np.load(plan.pixels, mmap_mode="r") if isinstance(plan.pixels, Path) else plan.pixels
        return build_task(
            plan.settings,
            ImageSet(plan.index, pixels),
            plan.splits,
            cache=plan.cache,
            start=plan.start,
            on_note=note,
        )

    def cancelled() -> bool:
        return pipe.poll() and isinstance(pipe.recv(), Cancel)

    def report(epoch: EpochReport) -> Verdict:
        pipe.send(Reported(job.slot, epoch))
        message = pipe.recv()
        if isinstance(message, Cancel):
            raise TrialCancelledError
        verdict: Verdict = message.verdict
        return verdict

    while True:
        job = pipe.recv()
        if not isinstance(job, Job):  # a Cancel that crossed the job's own end
            continue
        try:
            task = task or build()
            pipe.send(Began())
            result = run_trial(
                task,
                job.params,
                job.seed,
                report=report,
                cancelled=cancelled,
                checkpoint=job.checkpoint,
                told=job.told,
                on_note=note,
            )
        except TrialCancelledError:
            pipe.send(Idle())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:  # whatever a trial dies of must not take the worker along
            pipe.send(Failed(job.slot, traceback.format_exc()))
        else:
            pipe.send(Finished(job.slot, result))
