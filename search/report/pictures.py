"""Pictures of images and their maps, small enough that a page of a hundred stays below a megabyte."""

from __future__ import annotations

import math

from PIL import Image
from torch import Tensor

from explain.overlay import as_pixels, map_overlay
from search.pages.html import jpeg

__all__ = ["PictureStore"]

_SIDE = 208  # pixels of the longer side: what a telephone shows of it in a row of two


class PictureStore:
    """JPEG pictures in base64 under keys that follow from the order in which they were added."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}

    def add(self, image: Tensor, values: Tensor | None = None) -> str:
        """Keep a picture and return its key.

        Args:
            image: (3, H, W) in [0, 1].
            values: map drawn over it, (h, w), non-negative; None for the image alone.
        """
        scale = max(1, math.ceil(_SIDE / max(image.shape[1:])))
        pixels = as_pixels(image, scale) if values is None else map_overlay(image, values, scale)
        key = f"p{len(self.pictures)}"
        picture = Image.fromarray(pixels)
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        self.pictures[key] = jpeg(picture)
        return key
