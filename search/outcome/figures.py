"""Pictures of a search: class histogram, training curves of all trials, confusion matrix, and slides of maps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explain.fonts import use_fonts
from explain.overlay import as_pixels, map_overlay
from lightning_modules.errors import printable

__all__ = [
    "MAPS_BEFORE",
    "MAPS_OF_WINNER",
    "block_slides",
    "confusion_figure",
    "curves_figure",
    "histogram_figure",
    "shortened",
]

MAPS_BEFORE, MAPS_OF_WINNER = "maps/before training", "maps/winner"
"""Names of the slides in MLflow; their step is the number of the block, 0 the images themselves."""

_MOST_CLASSES = 40  # with more, a figure does not grow and names some of the classes at equal distances
_SLIDE_COLUMNS = 3
_SLIDE_SIDE = 1.9  # inches of a picture
_SLIDE_PIXELS = 192  # about so many are drawn for the longer side of one


def histogram_figure(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Images by class, stacked by split (the thesis's Figure 15); of more than 40 classes without their numbers.

    Args:
        counts: split name -> class -> images.
    """
    use_fonts()
    classes = list(next(iter(counts.values())))
    figure = Figure(figsize=(7, 0.34 * min(len(classes), _MOST_CLASSES) + 1.4), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(*_named(classes))
    left = np.zeros(len(classes))
    for (split, by_class), colour in zip(counts.items(), ("#1f4e79", "#7fa7cf", "#c9c9c9"), strict=False):
        values = np.array([by_class[c] for c in classes])
        axes.barh(range(len(classes)), values, left=left, label=f"{split} ({values.sum()})", color=colour)
        left += values
    for position, total in enumerate(left if len(classes) <= _MOST_CLASSES else ()):
        axes.text(total, position, f" {int(total)}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("images")
    axes.margins(x=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def curves_figure(curves: Sequence[tuple[str, Sequence[float], bool]], metric: str, best: int | None = None) -> Figure:
    """Validation score of every trial by epoch in one chart (the thesis's Figure 20).

    Args:
        curves: (label, score by epoch, whether the trial was stopped early).
        best: which curve is the winner's.
    """
    use_fonts()
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for position, (label, values, stopped) in enumerate(curves):
        steps = np.arange(1, len(values) + 1)
        if position == best:
            axes.plot(steps, values, color="#b5341e", linewidth=2.4, marker="o", markersize=4, label=f"winner: {label}")
            axes.set_zorder(2)
        else:
            colour = "#9aa7b4" if stopped else "#1f4e79"
            axes.plot(steps, values, color=colour, linewidth=1, alpha=0.7, marker="." if len(values) == 1 else None)
    axes.plot([], [], color="#1f4e79", label="full length")
    axes.plot([], [], color="#9aa7b4", label="stopped early")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {metric.replace('_', ' ')}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def confusion_figure(confusion: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Confusion matrix, a row a true class; colour: share of the row; number (up to 40 classes): the count."""
    use_fonts()
    side = 0.55 * min(len(classes), _MOST_CLASSES) + 2.4
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(confusion > 0) if len(classes) <= _MOST_CLASSES else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(*_named(classes), rotation=45, ha="right")
    axes.set_yticks(*_named(classes))
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.7)
    return figure


def _named(classes: Sequence[str]) -> tuple[range, Sequence[str]]:
    """The places of the classes that are named on an axis, and their names."""
    every = -(-len(classes) // _MOST_CLASSES)
    return range(0, len(classes), every), classes[::every]


def block_slides(
    images: Tensor, captions: Sequence[str], maps: Sequence[tuple[int, str, Tensor]]
) -> list[tuple[int, NDArray[np.uint8]]]:
    """The images, then their maps block by block, all pictures of one size.

    Args:
        images: (N, 3, H, W) in [0, 1], on the CPU.
        maps: (number of the block from 1, its name, maps (N, h, w)) of each block that has maps.

    Returns:
        (step, picture as uint8 (height, width, 3)): step 0 the images, then the block's number.
    """
    use_fonts()
    scale = max(1, _SLIDE_PIXELS // max(images.shape[2:]))
    plain = [as_pixels(image, scale) for image in images]
    slides = [(0, _picture("the images", captions, plain))]
    for number, name, values in maps:
        drawn = [map_overlay(image, one, scale) for image, one in zip(images, values, strict=True)]
        slides.append((number, _picture(f"block {number}: {printable(name)}", captions, drawn)))
    return slides


def _picture(title: str, captions: Sequence[str], pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    columns = min(_SLIDE_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    tall = _SLIDE_SIDE * pictures[0].shape[0] / pictures[0].shape[1]
    figure = Figure(figsize=(_SLIDE_SIDE * columns + 0.1, (tall + 0.3) * rows + 0.4), dpi=100)
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.08 / height, title, fontsize=13, weight="bold", va="top", parse_math=False)
    for place, (caption, pixels) in enumerate(zip(captions, pictures, strict=True)):
        row, column = divmod(place, columns)
        left, top = 0.1 + column * _SLIDE_SIDE, 0.4 + row * (tall + 0.3) + 0.23
        width = figure.get_figwidth()
        axes = figure.add_axes((left / width, 1 - (top + tall) / height, (_SLIDE_SIDE - 0.1) / width, tall / height))
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(shortened(caption), fontsize=11, pad=3, parse_math=False)
    memory = io.BytesIO()
    figure.savefig(memory, format="png")
    return np.asarray(Image.open(memory).convert("RGB"))


def shortened(caption: str, most: int = 22) -> str:
    """A name of the user's data on one line, of at most so many characters."""
    caption = printable(caption)
    return caption if len(caption) <= most else f"{caption[: most - 1]}…"
