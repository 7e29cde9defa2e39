"""The networks of a winner, trained side by side by the workers that trained its trials."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from search.errors import TrialCancelledError
from search.executor.protocol import Failed, Refit, Refitted
from search.executor.registry import Workers
from search.study.record import TrialRecord
from search.study.run import StudyRun
from search.study.sampler import slot_seed
from search.trial.files import network_file

__all__ = ["train_side_by_side"]

_POLL_SECONDS = 0.2


def train_side_by_side(run: StudyRun, workers: Workers, wanted: Sequence[tuple[TrialRecord, int | None]]) -> None:
    """Train the networks that are wanted and not kept yet, the dearest first, where there are several workers.

    A network that fails is not tried again here: who asks for it trains it in this process, and sees its error.

    Args:
        workers: closed afterwards, so that their memory is free.
        wanted: (trial, fold on whose training images, None for all).

    Raises:
        TrialCancelledError: the user stopped the search; networks that are done are kept.
    """
    jobs: list[Refit] = []
    for trial, fold in wanted:
        checkpoint = run.files.checkpoint(trial.slot)
        if checkpoint is not None and not network_file(checkpoint, fold).is_file():
            seed = slot_seed(run.settings.seed, trial.slot)
            jobs.append(Refit(len(jobs), trial.params, seed, checkpoint, fold))
    if len(jobs) > 1 and (executor := workers()).capacity > 1:
        waiting, running = deque(sorted(jobs, key=lambda job: -run.task.epoch_cost(job.params))), set[int]()
        run.now(f"Refitting the winner's networks: 0 of {len(jobs)}")
        while waiting or running:
            if run.stopping():
                raise TrialCancelledError
            if waiting and len(running) < executor.capacity:
                running.add(waiting[0].slot)
                executor.submit(waiting.popleft())
            elif isinstance(event := executor.poll(_POLL_SECONDS), Refitted | Failed):
                running.discard(event.slot)
                run.now(f"Refitting the winner's networks: {len(jobs) - len(waiting) - len(running)} of {len(jobs)}")
    workers.close()
