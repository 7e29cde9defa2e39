"""How images that are much larger than a network's input are cut into tiles, and which image each tile is of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError

__all__ = ["LARGEST_OVERLAP", "MOST_PIXELS", "MOST_TILES", "SMALLEST_TILE", "Tiling", "mask_counts"]

SMALLEST_TILE: Final = 8  # pixels of a side, as of the smallest input of a network
MOST_TILES: Final = 4096  # of an image
MOST_PIXELS: Final = 2**28  # of its tiles as a network is shown them: 4096 of 256 x 256
LARGEST_OVERLAP: Final = 0.9  # each pixel is seen a hundred times then

Boxes = NDArray[np.int64]


@dataclass(frozen=True)
class Tiling:
    """How an image is cut, and which of its tiles speaks for it (`by_image`).

    Attributes:
        side: height and width of a tile in pixels of the original image.
        overlap: smallest share of the side that neighbours have in common, in [0, 0.9].
        normal: class of images without a defect, or None.

    Raises:
        InputError: a side or an overlap out of range.
    """

    side: tuple[int, int]
    overlap: float
    normal: str | None = None

    def __post_init__(self) -> None:
        if any(isinstance(side, bool) or not isinstance(side, int) or side < SMALLEST_TILE for side in self.side):
            raise InputError(f"data.tile must be whole pixels of at least {SMALLEST_TILE}, got {list(self.side)}")
        if isinstance(self.overlap, bool) or not 0 <= self.overlap <= LARGEST_OVERLAP:
            raise InputError(f"data.tile_overlap must be in [0, {LARGEST_OVERLAP}], got {self.overlap}")

    def boxes(self, sides: tuple[int, int], size: tuple[int, int] = (1, 1)) -> Boxes:
        """Tiles (T, 4) of an image, row by row: top, left, height, width in pixels.

        They cover the image and lie in it: the last row and column are moved inward, so that they overlap more.

        Args:
            sides: height and width of the image.
            size: height and width that each tile is resized to.

        Raises:
            InputError: the reason alone (no path): the image is smaller than a tile, or has more than 4096, or so many
                that they would take more than 2^28 pixels once they are resized.
        """
        if sides[0] < self.side[0] or sides[1] < self.side[1]:
            tile = f"{self.side[1]} x {self.side[0]}"
            raise InputError(f"{sides[1]} x {sides[0]} pixels, smaller than a tile of {tile} (data.tile)")
        tops, lefts = (self._starts(length, side) for length, side in zip(sides, self.side, strict=True))
        if (count := len(tops) * len(lefts)) > MOST_TILES:
            raise InputError(
                f"{count} tiles of {sides[1]} x {sides[0]} pixels; data.tile accepts {MOST_TILES} an image"
            )
        if (taken := count * size[0] * size[1]) > MOST_PIXELS:
            shown = f"{count} tiles at {size[0]} x {size[1]} are {taken} pixels"
            raise InputError(f"{shown}; {MOST_PIXELS} an image are accepted (data.tile, data.size)")
        top, left = np.meshgrid(tops, lefts, indexing="ij")
        height, width = (np.full(count, side, np.int64) for side in self.side)
        return np.stack([top.ravel(), left.ravel(), height, width], axis=1)

    def count(self, sides: tuple[int, int]) -> int:
        """How many tiles an image has that `boxes` accepts."""
        rows, columns = (len(self._starts(length, side)) for length, side in zip(sides, self.side, strict=True))
        return rows * columns

    def normal_position(self, classes: Sequence[str]) -> int | None:
        """Position of the normal class among these, None where the tiling has none.

        Raises:
            InputError: no such class.
        """
        if self.normal is None:
            return None
        if self.normal not in classes:
            raise InputError(f"data.normal={self.normal} is no class of these images; they are {', '.join(classes)}")
        return list(classes).index(self.normal)

    def _starts(self, length: int, side: int) -> Boxes:
        # A rounding error of 224 * 0.75 must not cost a pixel of every step.
        step = max(1, math.floor(side * (1 - self.overlap) + 1e-9))
        count = 1 + -(-(length - side) // step)
        return np.minimum(np.arange(count, dtype=np.int64) * step, length - side)


def mask_counts(mask: NDArray[np.bool_], boxes: Boxes) -> tuple[int, ...]:
    """Pixels of a mask (H, W) in each of the boxes (T, 4)."""
    corner: NDArray[Any] = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    corner[1:, 1:] = mask.cumsum(0).cumsum(1)
    top, left = boxes[:, 0], boxes[:, 1]
    bottom, right = top + boxes[:, 2], left + boxes[:, 3]
    counts = corner[bottom, right] - corner[top, right] - corner[bottom, left] + corner[top, left]
    return tuple(counts.tolist())
