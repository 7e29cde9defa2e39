"""Pictures of images and their maps, small enough that a page of a hundred stays below a few megabytes."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from search.pages.html import jpeg
from search.pages.original_picture import Original, original_overlay

__all__ = ["PICTURE_SIDE", "PictureStore"]

PICTURE_SIDE = 208
"""Pixels of a picture's longer side, unless said: what a telephone shows of it in a row of two."""


class PictureStore:
    """JPEG pictures in base64 under keys that follow from the order in which they were added."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}

    def add(self, original: Original, values: Tensor | None = None, side: int = PICTURE_SIDE) -> str:
        """Keep a picture and return its key.

        Args:
            values: map drawn over it, over the network's input, (h, w), non-negative; None for the image alone.
            side: of the longer side, in pixels.
        """
        pixels = original.shown(side) if values is None else original_overlay(original, values, side)
        key = f"p{len(self.pictures)}"
        self.pictures[key] = jpeg(Image.fromarray(pixels))
        return key
