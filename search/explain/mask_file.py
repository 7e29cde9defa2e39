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


def defect_pixels(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.bool_]:
    """Pixels (H, W) of the defect, upright.

    Few values: all but 0, or black, are defect, be they 1, 255, classes or colours; of a palette without black the
    index counts, of a picture of one colour its alpha. Many values, or a lossy file: what is brighter than half,
    where nearly all pixels are nearly black or nearly white, as JPEG and resizing leave them.

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
    # What is left of JPEG when a file is saved again without loss is on the white side too, where classes are not.
    noise = bool((dark | light).all() and (light & (values < top)).any())
    if seen.size == 1 or (not lossy and not noise and seen.size <= _FEW):
        if seen.size > 1 and seen[0] > 0:
            raise InputError(f"no pixel is 0 (no defect); {_shown(seen)}")
        return np.asarray(values > 0)
    if (dark | light).mean() < _AT_THE_ENDS or not dark.any() or seen[-1] <= top // 2:
        raise InputError(f"neither black and white nor, in a PNG, of at most {_FEW} values; {_shown(seen)}")
    return np.asarray(values > top // 2)


def _shown(seen: NDArray[Any]) -> str:
    few = ", ".join(map(str, seen[:4].tolist()))
    return f"its values are {few}{', ..., ' + str(seen[-1]) if seen.size > 4 else ''} ({seen.size} different)"
