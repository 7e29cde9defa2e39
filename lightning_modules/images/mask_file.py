"""Which pixels of a mask file are defect, however the mask is written: the one way to read a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_modules.errors import InputError, printable
from lightning_modules.images.reading import (
    ACCEPTED_FORMATS,
    DEFAULT_MAX_PIXELS,
    decoded,
    pixels_of,
    read_bytes,
)
from lightning_modules.images.value_range import FULL_WHITE_LEVEL

__all__ = ["defect_pixels"]

_FEW: Final = 16
_AT_THE_ENDS: Final = 0.9
_PATCH: Final = 3  # pixels of one grey in a row and column that are a defect, not an edge
_REACH: Final = 16  # pixels from an edge that JPEG of colours changes, and more than soft edges are wide


def defect_pixels(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.bool_]:
    """Pixels (H, W) of the defect, upright.

    Few values: all but 0, or black, are defect, be they 1, 255, classes or colours; of a palette without black the
    index counts, of a picture of one colour its alpha. Many values, or a lossy file: what is brighter than half,
    where nearly all pixels, and nearly all that are not black, are nearly white or at its edges, as JPEG and resizing
    leave them.

    Raises:
        InputError: unreadable, or values that do not say what is defect.
    """
    try:
        data = read_bytes(path, max_pixels=max_pixels)
        values, lossy = decoded(data, _values, max_pixels=max_pixels, formats=(*ACCEPTED_FORMATS, "GIF", "PPM"))
        return _defect(values, lossy and b"VP8L" not in data)  # which a WebP without loss holds
    except InputError as error:
        raise InputError(f"mask {printable(path)}: {error}") from None


def _values(image: Image.Image) -> tuple[NDArray[Any], bool]:
    """Grey values (H, W), 0 where there is no defect, and whether the file was written with loss."""
    real = np.asarray(image) if image.mode == "F" else np.zeros(1)
    # Class numbers of programs that write all they have as floating point.
    whole = np.isfinite(real).all() and real.min() >= 0 and 1 < real.max() <= FULL_WHITE_LEVEL and (real % 1 == 0).all()
    pixels = real.astype(np.uint16)[:, :, None] if whole else pixels_of(image)
    tiny = (pixels[:, :, 0] == 0) & (real > 0) & (real < 1)  # rounded away
    if tiny.any():
        if not pixels.any() and np.unique(real).size > _FEW:
            raise InputError(f"more than {_FEW} floating-point values {real.min():g}..{real.max():g}, none near 1")
        pixels = np.where(tiny[:, :, None] & (np.unique(real).size <= _FEW), 1, pixels)
    values = pixels.max(axis=2)
    if image.mode == "P" and (values.min() > 0 or values.max() == 0):
        values = np.asarray(image)
    elif values.min() == values.max():
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3] if image.has_transparency_data else values
        values = alpha if alpha.min() < alpha.max() else values
        if values.min() == values.max() and (pixels != pixels[0, 0]).any():
            raise InputError("colours without black, which is no defect; paint the background black")
    return values, image.format in ("JPEG", "MPO", "WEBP") or image.info.get("compression") == "jpeg"


def _defect(values: NDArray[Any], lossy: bool) -> NDArray[np.bool_]:
    seen = np.unique(values)
    top = np.iinfo(values.dtype).max
    dark, light = values <= top // 16, values >= top - top // 16
    if seen.size == 1 or (not lossy and seen.size <= _FEW and not _saved_again(values, dark, light)):
        if seen.size > 1 and seen[0] > 0:
            raise InputError(f"no pixel is 0 (no defect); {_shown(seen)}")
        return np.asarray(values > 0)
    if (dark | light).mean() < _AT_THE_ENDS or not dark.any() or not _shows_white_alone(values, dark, light):
        raise InputError(f"neither black and white nor, in a PNG, of at most {_FEW} values; {_shown(seen)}")
    return np.asarray(values > top // 2)


def _saved_again(values: NDArray[Any], dark: NDArray[np.bool_], light: NDArray[np.bool_]) -> bool:
    """Whether few values are what is left of JPEG in a file saved again without loss: not white alone, and dark ones
    that are all near white and fill no patch, as a class would."""
    from scipy import ndimage

    low = dark & (values > 0)
    if np.unique(values[light]).size < 2 or not low.any() or (values[~_near(light)] > 0).any():
        return False
    flat = ndimage.minimum_filter(values, _PATCH) == ndimage.maximum_filter(values, _PATCH)
    return not (low & flat).any()


def _shows_white_alone(values: NDArray[Any], dark: NDArray[np.bool_], light: NDArray[np.bool_]) -> bool:
    """Whether half of white tells every defect: what is not dark is light or at an edge, and nothing else is seen."""
    from scipy import ndimage

    top = np.iinfo(values.dtype).max
    edge = _near(light) & _near(dark)
    if not light.any() or (light | edge)[~dark].mean() < _AT_THE_ENDS:
        return False
    least = ndimage.minimum_filter(values, _PATCH)
    flat = ndimage.maximum_filter(values, _PATCH) - least <= top // 32
    if (flat & ndimage.minimum_filter(~(dark | light), _PATCH)).any():
        return False
    far = ~_near(values > top // 2)
    # Away from white there is the background alone, be it not quite black: no patch is brighter.
    return not far.any() or bool(dark[far].all() and (least[far] <= np.bincount(values[far]).argmax()).all())


def _near(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    return np.asarray(ndimage.maximum_filter(pixels, 2 * _REACH + 1), bool)


def _shown(seen: NDArray[Any]) -> str:
    few = ", ".join(map(str, seen[:4].tolist()))
    return f"its values are {few}{', ..., ' + str(seen[-1]) if seen.size > 4 else ''} ({seen.size} different)"
