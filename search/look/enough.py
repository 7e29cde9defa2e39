"""How well so many test images tell an accuracy: exact intervals (Clopper and Pearson, Biometrika 1934)."""

from __future__ import annotations

from functools import cache

from scipy.special import betaincinv

__all__ = ["images_needed", "known_as"]

_TAIL = 0.025


def known_as(share: float, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy where about that share of so many images are right.

    >>> [round(end, 3) for end in known_as(0.95, 100)]
    [0.887, 0.984]
    >>> [round(end, 2) for end in known_as(1.0, 3)]
    [0.29, 1.0]
    """
    right = round(share * images)
    low = 0.0 if right == 0 else float(betaincinv(right, images - right + 1, _TAIL))
    high = 1.0 if right == images else float(betaincinv(right + 1, images - right, 1 - _TAIL))
    return low, high


@cache
def images_needed(share: float, other: float) -> int:
    """Fewest images from which on the interval of `share` lies above `other`, a smaller share, in tens."""
    images = 10
    while not all(known_as(share, more)[0] > other for more in range(images, images + 10)):
        images += 10
    return images
