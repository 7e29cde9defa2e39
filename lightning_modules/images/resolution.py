"""The size that images are brought to, and how another aspect ratio is: chosen from the images' own sizes.

An image that is enlarged shows nothing new, a network has seen objects at the size it was trained at, and an epoch
costs in proportion to its pixels. The choice is the largest side that none of the three forbids.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lightning_modules.images.reading import Fit

__all__ = ["FAR_OFF", "SMALLEST", "STEP", "Bounds", "Resolution", "choose_fit", "choose_side", "choose_size"]

Size = tuple[int, int]

SMALLEST: Final = 96
"""Side in pixels below which none is chosen."""
STEP: Final = 32
"""Sides are multiples of this: five halvings, as in nearly every convolutional network, leave no remainder."""
FAR_OFF: Final = 1.5
"""Factor between the images' aspect ratio and the target's beyond which the ratio is kept.

Photographs of 3:2 are stretched, as pre-trained networks have seen them (ImageNet's usual augmentation crops at ratios
of 3:4 to 4:3 and stretches these). Padding in their place would spend a third of the network's work on no picture.
"""


@dataclass(frozen=True)
class Resolution:
    """What images are brought to.

    Attributes:
        size: (height, width) in pixels.
        fit: see `fit_image`.
        why: a line for the user; empty where nothing was chosen.
    """

    size: Size
    fit: Fit
    why: str = ""


@dataclass(frozen=True)
class Bounds:
    """What bounds the side.

    Attributes:
        network: its name, for the reason.
        native: side in pixels that it was trained at, or is made for.
        smallest: side in pixels that it needs.
        trained: whether it was trained at `native`.
        epoch_images: images that an epoch trains.
        megapixels: most that an epoch may train, in 10^6 pixels.
        limit: that number in words.
        shown: what the network is shown, for the reason.
    """

    network: str
    native: int
    smallest: int
    trained: bool
    epoch_images: int
    megapixels: float
    limit: str
    shown: str = "images"


def choose_side(own: int, bounds: Bounds) -> tuple[int, int | None]:
    """The side of a square in pixels, and the next larger one if what an epoch may train forbids that.

    The side is the largest multiple of `STEP` with side <= native, side < own + STEP and epoch_images * side^2 <=
    megapixels * 10^6, or the smallest side where there is none: `SMALLEST`, or what the network needs if that is more.

    Args:
        own: the images' own longer side in pixels.
    """
    smallest = max(SMALLEST, _up(bounds.smallest))
    largest = max(smallest, min(bounds.native // STEP * STEP, _up(own)))
    side = smallest
    while side < largest:
        if megapixels(bounds.epoch_images, (side + STEP, side + STEP)) > bounds.megapixels:
            return side, side + STEP
        side += STEP
    return side, None


def choose_fit(sizes: Sequence[Size], target: Size) -> tuple[Fit, float]:
    """("pad" where the aspect ratio is more than `FAR_OFF` from the target's else "stretch", median factor >= 1).

    Args:
        sizes: (height, width) of images; none counts as the target's ratio.
    """
    height, width = target
    factors = [max(h * width / (w * height), w * height / (h * width)) for h, w in sizes]
    factor = statistics.median_low(factors) if factors else 1.0
    return ("pad" if factor > FAR_OFF else "stretch"), factor


def choose_size(sizes: Sequence[Size], bounds: Bounds) -> tuple[Size, str]:
    """The size for images of these sizes, and why.

    Args:
        sizes: (height, width) of the training images; without any the network alone decides.
    """
    height, width = (
        (statistics.median_low(sides) for sides in zip(*sizes, strict=True)) if sizes else (bounds.native,) * 2
    )
    side, dearer = choose_side(max(height, width), bounds)
    if dearer is not None:
        cost = megapixels(bounds.epoch_images, (dearer, dearer))
        return (side, side), f"{dearer} would train {cost:.1f} megapixels an epoch, more than {bounds.limit}"
    least = f"; {side} is the least" if side > min(max(height, width), bounds.native) and side <= SMALLEST else ""
    made = f"{bounds.network} {'was trained at' if bounds.trained else 'is made for'} {bounds.native}"
    return (side, side), f"the {bounds.shown} are {height} x {width} (median), {made}{least}"


def megapixels(images: int, size: Size) -> float:
    """Pixels of so many images of a size (height, width), in millions."""
    return images * size[0] * size[1] / 1e6


def _up(side: int) -> int:
    return -(-side // STEP) * STEP
