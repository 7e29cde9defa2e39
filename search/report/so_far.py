"""What the best trial has wrong on validation images, for the page of a search that is still running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search.report.wrong_images import WrongImages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from search.study.run import StudyRun
    from search.trial.task import Task

__all__ = ["SoFar", "look_so_far"]

_MOST = 500  # images: trials that run beside it must not wait long


@dataclass(frozen=True)
class SoFar:
    """The best complete trial on validation images of the first fold, 500 at most, which it has not seen.

    Attributes:
        slot: of the trial.
        confusion: (K, K) counts, row = true class.
    """

    slot: int
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    wrong: WrongImages


def look_so_far(run: StudyRun, before: SoFar | None) -> SoFar | None:
    """Answer the validation images by the network that the best trial left; None while none has left one.

    A trial with several folds leaves none. Nothing is trained, and nothing drawn at random, so that a trial which runs
    beside it in this process is not disturbed.

    Args:
        before: what was found earlier, returned where the same trial is still the best.
    """
    from search.report.wrong_examination import answer_images, examine_wrong
    from search.study.sampler import slot_seed
    from search.trial.training import kept_network

    best = next(iter(run.record.members(1)), None)
    if best is None or (before is not None and before.slot == best.slot):
        return before
    task = run.task.of(best.params.network)
    checkpoint = run.files.checkpoint(best.slot)
    if checkpoint is None:
        return before
    seed = slot_seed(run.settings.seed, best.slot)
    net = kept_network(task, best.params, seed, run.settings.trainer.epochs, checkpoint=checkpoint)
    if net is None:
        return before
    answers = answer_images(task, net, _shown(task, task.splits.folds[0].val))
    wrong, confusion = examine_wrong(task, net, "", answers)
    return SoFar(best.slot, task.classes, tuple(tuple(map(int, row)) for row in confusion), wrong)


def _shown(task: Task, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of `_MOST` of their images, the same each time, or all."""
    of = task.images_of(rows)
    images = np.unique(of)
    if len(images) <= _MOST:
        return rows
    chosen = np.random.default_rng([task.settings.seed, 11]).permutation(images)[:_MOST]
    return rows[np.isin(of, chosen)]
