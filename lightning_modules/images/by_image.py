"""From a network's answers on tiles to one answer an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ImageAnswers", "by_image"]


@dataclass(frozen=True, eq=False)
class ImageAnswers:
    """One answer an image.

    Attributes:
        images: (M,) int64, the images' numbers, ascending.
        logits: (M, classes) whose softmax are the image's probabilities, on the device of the tiles' logits.
        deciding: (M,) int64, position among the tiles of the one that decided.
    """

    images: NDArray[np.int64]
    logits: Tensor
    deciding: NDArray[np.int64]


def by_image(logits: Tensor, images: NDArray[np.int64], normal: int | None) -> ImageAnswers:
    """The answers on M images from those on their N tiles.

    With a normal class the *worst* tile speaks: an image is as defective as its most defective place, so the tile with
    the smallest probability of the normal class gives the image all its probabilities (max-pooling of multiple-instance
    learning; Dietterich et al. 1997, doi 10.1016/S0004-3702(96)00034-3). Without one each tile is a look at the same
    kind of thing, and the image's log-probabilities are the *mean* of its tiles' (the logarithmic opinion pool; Genest
    and Zidek 1986, doi 10.1214/ss/1177013825), up to a constant; the tile with the largest probability of the image's
    class counts as the one that decided.

    Args:
        logits: (N, classes).
        images: (N,) number of each tile's image, in any order.
        normal: position of the normal class, or None.

    Returns:
        Of tiles that decide alike, the first one. An image with a tile whose logits are not finite has such logits.
    """
    found, place = np.unique(images, return_inverse=True)
    log_p = logits.detach().double().log_softmax(1).cpu()
    if normal is not None:
        value = log_p[:, normal].numpy()
        deciding = _first(np.where(np.isnan(value), -np.inf, value), place)
        return ImageAnswers(found, logits[torch.from_numpy(deciding).to(logits.device)], deciding)
    sums = torch.zeros(len(found), logits.shape[1], dtype=torch.float64).index_add_(0, torch.from_numpy(place), log_p)
    mean = sums / torch.from_numpy(np.bincount(place, minlength=len(found)))[:, None]
    chosen = mean.argmax(1)[torch.from_numpy(place)]
    deciding = _first(-log_p.gather(1, chosen[:, None])[:, 0].numpy(), place)
    return ImageAnswers(found, mean.to(logits.device, logits.dtype), deciding)


def _first(value: NDArray[np.float64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each place the position of the smallest value, the first of equals."""
    order = np.lexsort((np.arange(len(value)), value, place))
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    return order[starts].astype(np.int64)
