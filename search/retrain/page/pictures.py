"""The images that a month's page shows: where the two models disagree or hesitate, and whose label is suspect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from explain.attribution import METHODS, finite_maps
from explain.signals import capture
from lightning_modules.networks.blocknet import BlockNet
from search.pages.original_picture import Original
from search.report.judged_images import map_blocks
from search.retrain.month.record import PictureFacts

__all__ = ["SUSPECTS_RULE", "PagePicture", "explained", "informative", "picture_facts", "suspect"]

SUSPECTS_RULE = (
    "Champion and challenger both are sure of the same other class. One of the two may have been trained on the image, "
    "so this finds less than a comparison over folds would; and where both make the same mistake, the label is right."
)
"""By which rule `suspect` finds images, in words."""

_SURE = 0.8
_DOUBT = 0.5  # margin of the most probable class, above which nothing is in doubt
_MOST_DISAGREEING, _MOST_WRONG = 6, 2
_BATCH = 16

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PagePicture:
    """One image with a map of each model.

    Attributes:
        original: as it was taken.
        block: whose maps they are; empty without any.
        champion: LayerCAM map of the champion's answer, (h, w), over the network's input; None without a map.
        challenger: likewise of the challenger; None without one.
    """

    original: Original
    block: str
    champion: Tensor | None
    challenger: Tensor | None


def informative(
    champion: ArrayLike, challenger: ArrayLike | None, labels: ArrayLike, *, most: int = 10
) -> list[tuple[int, str]]:
    """Rows of the images that tell most about the two models, and why each is shown.

    First up to six on which exactly one of the two is right, lost and gained ones in turn, the surest wrong answer
    first; then up to two on which both are wrong; then those that the challenger (champion, without one) hesitates at,
    the smallest margin first: the most probable class is ahead of the second by less than a half. What is left free by
    one kind goes to the next.

    Probabilities are (N, C), labels (N,).
    """
    truth = np.asarray(labels)
    one = np.asarray(champion, dtype=np.float64)
    other = one if challenger is None else np.asarray(challenger, dtype=np.float64)
    right = [answer.argmax(axis=1) == truth for answer in (one, other)]
    sure = [answer.max(axis=1) for answer in (one, other)]
    lost = _ordered(right[0] & ~right[1], -sure[1])
    gained = _ordered(right[1] & ~right[0], -sure[0])
    chosen: dict[int, str] = {}
    for number in range(max(len(lost), len(gained))):
        for rows, why in ((lost, "only the champion is right"), (gained, "only the challenger is right")):
            if number < len(rows) and len(chosen) < min(_MOST_DISAGREEING, most):
                chosen[rows[number]] = why
    both = "the champion is wrong" if challenger is None else "both are wrong"
    wrong = _ordered(~right[0] & ~right[1], -np.minimum(*sure))
    for row in wrong[: (_MOST_DISAGREEING if challenger is None else _MOST_WRONG)]:
        if len(chosen) < most:
            chosen[row] = both
    top = np.sort(other, axis=1)
    hesitates = "the champion hesitates" if challenger is None else "the challenger hesitates"
    margin = top[:, -1] - top[:, -2]
    for row in _ordered(margin < _DOUBT, margin):
        if len(chosen) < most:
            chosen.setdefault(row, hesitates)
    return list(chosen.items())


def suspect(champion: ArrayLike, challenger: ArrayLike, labels: ArrayLike, *, most: int = 10) -> list[tuple[int, str]]:
    """Rows of images that both models give the same other class than the label, each with a probability of 0.8 or more.

    The surest first, and why each is shown; probabilities are (N, C), labels (N,).
    """
    one, other = np.asarray(champion, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    answer = one.argmax(axis=1)
    least = np.minimum(one.max(axis=1), other.max(axis=1))
    found = (answer == other.argmax(axis=1)) & (answer != np.asarray(labels)) & (least >= _SURE)
    return [(row, "both are sure of another class") for row in _ordered(found, -least)[:most]]


def picture_facts(
    chosen: Sequence[tuple[int, str]],
    champion: ArrayLike,
    challenger: ArrayLike | None,
    labels: ArrayLike,
    *,
    paths: Sequence[str],
    classes: Sequence[str],
) -> tuple[PictureFacts, ...]:
    """What the page says of each image that `informative` or `suspect` chose; paths are printable and distinct."""
    truth = np.asarray(labels)

    def answer(given: ArrayLike, row: int) -> tuple[str, float]:
        probabilities = np.asarray(given, dtype=np.float64)[row]
        best = int(probabilities.argmax())
        return classes[best], float(probabilities[best])

    return tuple(
        PictureFacts(
            path=paths[row],
            truth=classes[int(truth[row])],
            champion=answer(champion, row),
            challenger=None if challenger is None else answer(challenger, row),
            why=why,
        )
        for row, why in chosen
    )


def explained(
    champion: BlockNet, challenger: BlockNet | None, images: Tensor, originals: Sequence[Original]
) -> list[PagePicture]:
    """LayerCAM maps of both models' own answers to images (N, 3, H, W) in [0, 1].

    At the last block with at least 4 x 4 cells (`map_blocks`), the same of both.
    """
    if not len(images):
        return []
    size = (int(images.shape[2]), int(images.shape[3]))
    _, _, block = map_blocks(champion, size)
    none: list[Tensor | None] = [None] * len(images)
    maps = [_maps(net, images, block) if net is not None and block else none for net in (champion, challenger)]
    return [PagePicture(original, block, one, other) for original, one, other in zip(originals, *maps, strict=True)]


def _maps(net: BlockNet, images: Tensor, block: str) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        (signals,) = capture(net, batch.to(net.mean.device), [f"blocks.{block}"])
        found += list(finite_maps(METHODS["layercam"](signals)).cpu())
    return found


def _ordered(chosen: NDArray[np.bool_], key: Numbers) -> list[int]:
    """Rows that are chosen, by rising key."""
    rows = np.flatnonzero(chosen)
    return [int(row) for row in rows[np.argsort(key[rows], kind="stable")]]
