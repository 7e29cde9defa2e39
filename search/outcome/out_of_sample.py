"""What the winning configuration answers on images that it was not trained on, and what follows from it.

The winner is refitted on training and validation images together, so none of them can say how sure it may be. The
networks of its trial have seen the training images of their folds alone; their answers on the validation images stand
for the winner's. Test images are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_modules.decisions.conformal import CalibrationScores
from lightning_modules.decisions.temperature import FEWEST_IMAGES, fit_temperature, log_probabilities
from lightning_modules.images.split_units import Units
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.committee import fit_weights
from search.outcome.reference import task_features, training_distances
from search.trial.task import Task

__all__ = ["OutOfSample", "image_groups", "out_of_sample"]


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """Answers on N images that were not trained on.

    Attributes:
        logits: (N, classes), uncalibrated; an image's, also where it is cut into tiles.
        labels: (N,) int64.
        groups: (N,) int64: images of one number are not independent.
        distances: (N,) float32, to training images of the network that answered (`reference_images.distances`); None
            where nobody asked.
        weights: of the members' logits, by these images; empty for one network.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    distances: NDArray[np.float32] | None = None
    weights: tuple[float, ...] = ()

    @property
    def problem(self) -> str:
        """Why nothing can be fitted to them, or empty."""
        if not np.isfinite(self.logits).all():
            return "an answer on a validation image is not finite"
        if len(self.labels) < FEWEST_IMAGES:
            return f"{len(self.labels)} validation images, at least {FEWEST_IMAGES} are needed"
        return ""

    @cached_property
    def temperature(self) -> float | None:
        """What makes them calibrated; None where nothing can be fitted."""
        return None if self.problem else fit_temperature(self.logits, self.labels)

    @property
    def scores(self) -> CalibrationScores | None:
        """What prediction sets are made of; None where nothing can be fitted."""
        if self.temperature is None:
            return None
        return CalibrationScores.of(log_probabilities(self.logits, self.temperature), self.labels, self.groups)


def out_of_sample(task: Task, networks: Callable[[int], Sequence[BlockNet]]) -> OutOfSample:
    """The answers on the validation images of all folds, each by a network that has not seen it.

    With `data.repeats` those of the first repeat alone, so that each image counts once. A single fold's networks are
    taken from where the trials left them; of several folds each is trained again, which costs as much as the trials.

    The members of a committee are weighted by the same answers (`fit_weights`): so few numbers that what is fitted to
    the weighted answers next is hardly too favourable.

    Args:
        networks: number of a fold -> the winner's members, trained on its training images.
    """
    folds = task.splits.folds[: task.settings.data.folds]
    parts, labels, images, distances = [], [], [], []
    for number, fold in enumerate(folds):
        members = networks(number)
        answers, features = task_features(task, members[0], fold.val)
        distances.append(training_distances(task, members[0], fold.train, features))
        others = [task_features(task, member, fold.val)[0] for member in members[1:]]
        parts.append(np.stack([one.logits.double().numpy() for one in (answers, *others)]))
        labels.append(answers.labels.numpy())
        images.append(task.images_of(answers.rows))
    logits, known, groups = np.concatenate(parts, axis=1), np.concatenate(labels), image_groups(task)
    alone = len(logits) == 1 or not np.isfinite(logits).all()
    weights = () if alone else fit_weights(logits, known)
    together = np.tensordot(weights, logits, 1) if weights else logits.mean(0)
    return OutOfSample(together, known, groups[np.concatenate(images)], np.concatenate(distances), weights)


def image_groups(task: Task) -> NDArray[np.int64]:
    """(images,) number of each image's group: images that the splits never part (`data.groups`, copies)."""
    return Units(task.image_index, task.settings.seed).of
