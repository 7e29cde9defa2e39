"""Which values of images of more than 8 bits become black and white, and whether an image has the values of a model's.

Nothing here is decided by one pixel or one image: `robust_ends` leaves out the most extreme thousandth of an image's
pixels, and hundredth of the images, at least one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FULL_RANGE", "FULL_WHITE_LEVEL", "WHITE_LEVELS", "ValueRange", "WideValues", "choose_range", "described_values",
    "robust_ends", "scale_to_uint8", "shows_nothing", "value_problem", "white_level_for", "wide_values",
]  # fmt: skip

FULL_WHITE_LEVEL: Final = 65_535
WHITE_LEVELS: Final = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
_FEWEST = 3  # values of which the extreme ones can be told from the others
_PIXELS, _IMAGES = 0.001, 0.01  # share left out at either end
_SHARE = 0.1  # of an image's pixels outside the range, or of a set's images of another kind, that is accepted
_FLAT = 1.0  # standard deviation in grey values of 255: less is no picture of anything
_STEP = 4  # from one of `WHITE_LEVELS` to the next but for the first


class ValueRange(NamedTuple):
    """Values of images of more than 8 bits that become 0 and 255, each in 0..65535, `black` below `white`.

    Attributes:
        dark: an image whose values all lie below is darker than any trained on: as of a camera of fewer bits.
    """

    black: int = 0
    white: int = FULL_WHITE_LEVEL
    dark: int = 0

    @property
    def narrow(self) -> bool:
        """Whether it is a part of what a camera can write, so that 8-bit images cannot be of the same scale."""
        return self.black > 0 or self.white not in WHITE_LEVELS


FULL_RANGE: Final = ValueRange()


class WideValues(NamedTuple):
    """Values of an image of more than 8 bits: its robust ends, and the share of its pixels outside the range."""

    low: int
    high: int
    outside: float


def robust_ends(values: NDArray[Any], share: float) -> tuple[int, int]:
    """Smallest and largest of N values without a share at either end, at least one value from three on.

    >>> robust_ends(np.array([7, 5, 60000, 6, 0]), 0.01)
    (5, 7)
    """
    cut = max(1, int(values.size * share)) if values.size >= _FEWEST else 0
    ordered = np.partition(values, (cut, values.size - 1 - cut))
    return int(ordered[cut]), int(ordered[-1 - cut])


def wide_values(pixels: NDArray[Any], known: ValueRange) -> WideValues | None:
    """Values of a decoded image of any shape; None for uint8."""
    if pixels.dtype == np.uint8:
        return None
    outside = np.count_nonzero((pixels < known.black) | (pixels > known.white))
    return WideValues(*robust_ends(pixels.ravel(), _PIXELS), outside / pixels.size)


def white_level_for(maximum: int) -> int:
    """White of the camera of fewest bits that covers a value: one of 10, 12 or 14 bits writes 16-bit files too."""
    return next(level for level in WHITE_LEVELS if maximum <= level)


def choose_range(found: Sequence[WideValues | None]) -> ValueRange:
    """The range of a set, from the values of its images; None stands for one of 8 bits.

    From 0 to the camera's white, where the images use a quarter of that (64 of 256 levels) or more than a tenth of them
    have 8 bits and so one scale with 0 to white alone. Else from the lowest to the highest value with a twentieth of
    the difference at either end, at least 255 wide: narrower would only tell apart what the files do not.

    >>> choose_range([WideValues(51200, 52200, 0.0)] * 20)
    ValueRange(black=51150, white=52250, dark=13050)
    """
    wide = [values for values in found if values is not None]
    if not wide:
        return ValueRange(dark=WHITE_LEVELS[-2] + 1)  # files of fewer than 16 bits would be nearly black
    low, _ = robust_ends(np.array([values.low for values in wide]), _IMAGES)
    faintest, high = robust_ends(np.array([values.high for values in wide]), _IMAGES)
    white, dark, spread = white_level_for(high), faintest // _STEP, max(0, high - low)
    if spread * _STEP > white or len(found) - len(wide) > _SHARE * len(found):
        return ValueRange(0, white, dark)
    margin = max(-(-spread // 20), -(-(255 - spread) // 2))
    black = max(0, min(low - margin, FULL_WHITE_LEVEL - 255))
    return ValueRange(black, min(FULL_WHITE_LEVEL, max(high + margin, black + 255)), dark)


def scale_to_uint8(pixels: NDArray[Any], known: ValueRange) -> NDArray[np.uint8]:
    """Values of black..white mapped to 0..255, rounded and clipped; uint8 pixels are returned unchanged.

    Raises:
        ValueError: the range is not one in 0..65535.
    """
    black, white, _ = known
    if not 0 <= black < white <= FULL_WHITE_LEVEL:
        raise ValueError(f"black and white must be in 0..{FULL_WHITE_LEVEL}, black below white, got {black}, {white}")
    if pixels.dtype == np.uint8:
        return pixels
    width = white - black
    inside: NDArray[np.uint32] = np.clip(pixels, black, white).astype(np.uint32) - black
    return ((inside * 510 + width) // (2 * width)).astype(np.uint8)


def value_problem(values: WideValues | None, known: ValueRange) -> str:
    """Why a model that was trained on images of this range would see another picture; empty where it would not.

    A tenth of the pixels may lie outside. 8-bit images are accepted where the range is a camera's whole one, and
    an image of one value is never too dark.
    """
    if values is not None and values.outside <= _SHARE and values.low < values.high < known.dark:
        why = f"all below {known.dark}: too dark for the model, which was trained on brighter ones"
        way = "save values of 8 bits with 8 bits, scale others"
    elif known.narrow if values is None else values.outside > _SHARE:
        why = (
            f"and {known.black} to {known.white} of more than 8 bits for the model: it would see the image brighter or "
            "darker than it was trained on"
        )
        way = "scale images"
    else:
        return ""
    return (
        f"its values are {described_values(values)}, {why}; {way} as those of the training, or train a model on such "
        "images"
    )


def described_values(values: WideValues | None) -> str:
    """Values of an image in words; None is one of 8 bits."""
    if values is None:
        return "0 to 255, 8 bits"
    return f"{values.low} to {values.high}" if values.low < values.high else f"{values.low} everywhere"


def shows_nothing(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of N images (N, ...) in 0..255 do not vary: a broken camera, or empty files."""
    flat: NDArray[np.bool_] = pixels.reshape(len(pixels), -1).astype(np.float32).std(axis=1) < _FLAT
    return flat
