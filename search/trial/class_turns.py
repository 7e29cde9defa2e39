"""An order of images in which classes take turns, so that the first of them hold as many of each as there can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_turns"]


def by_turns(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places (N,) of images with these labels (N,): the n-th of each class before the (n + 1)-th of any.

    Images of the same turn stay in their order.

    Example:
        >>> by_turns(np.array([7, 7, 7, 2, 2])).tolist()
        [0, 3, 1, 4, 2]
    """
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        turn[inside] = np.arange(len(inside))
    return np.argsort(turn, kind="stable")
