"""Maps of a few images, one picture a block: in MLflow's UI a slider goes through the blocks of the network."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explain.fonts import use_fonts
from explain.overlay import as_pixels, map_overlay
from lightning_modules.errors import printable

__all__ = ["BEFORE", "WINNER", "block_slides"]

BEFORE, WINNER = "maps/before training", "maps/winner"
"""Names of the pictures in MLflow; their step is the number of the block, 0 the images themselves."""

_COLUMNS = 3
_SIDE = 1.9  # inches of a picture
_PIXELS = 192  # about so many are drawn for the longer side of one


def block_slides(
    images: Tensor, captions: Sequence[str], maps: Sequence[tuple[int, str, Tensor]]
) -> list[tuple[int, NDArray[np.uint8]]]:
    """The images, then their maps block by block, all pictures of one size.

    Args:
        images: (N, 3, H, W) in [0, 1], on the CPU.
        captions: of the images.
        maps: (number of the block from 1, its name, maps (N, h, w)) of each block that has maps.

    Returns:
        (step, picture as uint8 (height, width, 3)): step 0 the images, then the block's number.
    """
    use_fonts()
    scale = max(1, _PIXELS // max(images.shape[2:]))
    plain = [as_pixels(image, scale) for image in images]
    slides = [(0, _picture("the images", captions, plain))]
    for number, name, values in maps:
        drawn = [map_overlay(image, one, scale) for image, one in zip(images, values, strict=True)]
        slides.append((number, _picture(f"block {number}: {printable(name)}", captions, drawn)))
    return slides


def _picture(title: str, captions: Sequence[str], pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    tall = _SIDE * pictures[0].shape[0] / pictures[0].shape[1]
    figure = Figure(figsize=(_SIDE * columns + 0.1, (tall + 0.3) * rows + 0.4), dpi=100)
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.08 / height, title, fontsize=13, weight="bold", va="top", parse_math=False)
    for place, (caption, pixels) in enumerate(zip(captions, pictures, strict=True)):
        row, column = divmod(place, columns)
        left, top = 0.1 + column * _SIDE, 0.4 + row * (tall + 0.3) + 0.23
        width = figure.get_figwidth()
        axes = figure.add_axes((left / width, 1 - (top + tall) / height, (_SIDE - 0.1) / width, tall / height))
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(_shortened(caption), fontsize=11, pad=3, parse_math=False)
    memory = io.BytesIO()
    figure.savefig(memory, format="png")
    return np.asarray(Image.open(memory).convert("RGB"))


def _shortened(caption: str, most: int = 22) -> str:
    caption = printable(caption)
    return caption if len(caption) <= most else f"{caption[: most - 1]}…"
