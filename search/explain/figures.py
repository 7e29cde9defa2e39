"""Figures of explanations: a row by method with a panel by block, and contact sheets of a class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from explain.fonts import use_fonts
from explain.overlay import COLOURS, SIGNED_COLOURS, as_pixels, map_overlay, superpixel_overlay, truth_overlay
from explain.subject import ImageExplanation
from explain.superpixels import SuperpixelExplanation
from lightning_modules.errors import printable
from search.pages.numbers import written

__all__ = ["contact_sheet", "image_figure", "measure_lines", "roomy_block", "shares_line"]

_PANEL = 1.55  # inches
_FEWEST_CELLS = 4  # of a side
_COLUMNS = 8
_FOOTNOTE = (
    "ce: entropy / ln(h w), 12ca: elliptical area, cd: dispersion, rd: relative difference, of the map at its own "
    "resolution: compare them between images, not between blocks"
)
_LABELS = (("entropy", "ce"), ("area", "12ca"), ("dispersion", "cd"), ("relative_difference", "rd"))


def measure_lines(values: Mapping[str, float]) -> tuple[str, str]:
    """Measures of a map (columns of `MEASURED`) in two short lines."""
    if values["dead"]:
        return "dead map", ""
    parts = [f"{short} {written(values[column], 'three')}" for column, short in _LABELS]
    return f"{parts[0]}  {parts[1]}", f"{parts[2]}  {parts[3]}"


def shares_line(lime: SuperpixelExplanation, classes: Sequence[str], most: int = 3) -> str:
    """Share of each class in the evidence LIME found, the largest first."""
    shares = lime.shares
    order = [k for k in shares.argsort(descending=True).tolist() if shares[k] > 0][:most]
    return ", ".join(f"{classes[k]} {shares[k]:.0%}" for k in order) or "no evidence for any class"


def image_figure(explained: ImageExplanation, methods: Sequence[str], classes: Sequence[str]) -> Figure:
    """The maps of one image: a row of panels by method, block after block, measures beneath each.

    Args:
        explained: maps of at least one block.
        methods: methods to draw, one row of panels each (two where there are more than eight blocks).
    """
    use_fonts()
    blocks = list(dict.fromkeys(block for _, block in explained.maps))
    columns = min(_COLUMNS, len(blocks)) + 1
    lines = math.ceil(len(blocks) / _COLUMNS)
    rows = lines * len(methods) + (explained.lime is not None)
    height, width = explained.image.shape[1:]
    tall = _PANEL * height / width
    figure = Figure(
        figsize=(columns * (_PANEL + 0.12) + 0.9, rows * (tall + 0.66) + 0.75), layout="constrained", dpi=110
    )
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    scale = max(1, math.ceil(224 / max(height, width)))
    if explained.defect is None:
        _picture(axes[0, 0], as_pixels(explained.image, scale), "image")
    else:
        _picture(axes[0, 0], truth_overlay(explained.image, explained.defect, scale), "image, line: defect")
    for place, method in enumerate(methods):
        for number, block in enumerate(blocks):
            if (method, block) not in explained.maps:
                continue
            axis = axes[place * lines + number // _COLUMNS, number % _COLUMNS + 1]
            values = explained.maps[method, block]
            title = f"{block}  {values.shape[0]}x{values.shape[1]}"
            _picture(axis, map_overlay(explained.image, values, scale), title)
            for line, text in enumerate(measure_lines(explained.measures[method, block])):
                _text(axis, 0.5, -0.04 - line * 0.15 / tall, text, size=6.5, va="top", ha="center")
        first = axes[place * lines, 0]
        _text(first, -0.12, 0.5, method, size=9, rotation=90, va="center", ha="right", weight="bold")
    if explained.lime is not None:
        _superpixels(axes[rows - 1], explained, explained.lime, classes, scale)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), COLOURS), ax=axes[: lines * len(methods)], shrink=0.8, aspect=30, pad=0.01
    )
    bar.set_label("share of the map's maximum; line at 0.5", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(_title(explained), fontsize=9, parse_math=False)
    figure.supxlabel(_FOOTNOTE, fontsize=6.5, color="0.35")
    return figure


def roomy_block(explained: ImageExplanation, method: str) -> tuple[str, bool]:
    """The last block whose map of this method has at least 4 x 4 cells, or the last one, and whether it has as many.

    A map of two by two says nothing of a place.
    """
    own = [block for name, block in explained.maps if name == method]
    roomy = [block for block in own if min(explained.maps[method, block].shape) >= _FEWEST_CELLS]
    return (roomy or own)[-1], bool(roomy)


def contact_sheet(
    name: str, explained: Sequence[ImageExplanation], method: str, block: str, total: int, columns: int = 6
) -> Figure:
    """Images predicted as one class, the most certain first, each above its map at one block.

    Args:
        explained: images to show, in order.
        total: images predicted as this class.
    """
    use_fonts()
    columns = min(columns, max(3, len(explained)))  # the title needs the width of three
    lines = math.ceil(len(explained) / columns)
    height, width = explained[0].image.shape[1:]
    scale = max(1, math.ceil(160 / max(height, width)))
    size = (columns * (_PANEL + 0.1) + 0.9, lines * (2 * _PANEL * height / width + 0.4) + 0.6)
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes: Any = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, one in zip(axes.flat, explained, strict=False):
        drawn = map_overlay(one.image, one.maps[method, block], scale)
        axis.imshow(np.concatenate([as_pixels(one.image, scale), drawn]))
        wrong = f", is {one.truth}" if one.truth not in (None, name) else ""
        title = f"{_short(printable(one.path.name), 26)}\n{one.predicted[1]:.2f}{_short(printable(wrong), 24)}"
        axis.set_title(title, fontsize=6, pad=2, parse_math=False)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), ax=axes, shrink=min(1, 2.5 / size[1]), pad=0.01)
    bar.set_label("share of the map's maximum", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    shown = f"all {total}" if len(explained) == total else f"{len(explained)} of {total}"
    words = f"predicted as {printable(name)}: {shown}, most certain first; {method} at {block}"
    figure.suptitle(words, fontsize=9, parse_math=False)
    return figure


def _superpixels(
    axes: Any, explained: ImageExplanation, lime: SuperpixelExplanation, classes: Sequence[str], scale: int
) -> None:
    _picture(axes[1], superpixel_overlay(explained.image, lime, scale), "super-pixels")
    _text(axes[0], -0.12, 0.5, "lime", size=9, rotation=90, va="center", ha="right", weight="bold")
    strips = axes[0].inset_axes((0.62, 0.1, 0.08, 0.8))
    strips.imshow(np.linspace(1, 0, 64)[:, None], cmap=SIGNED_COLOURS, aspect="auto", extent=(0, 1, -1, 1))
    strips.set_xticks([])
    strips.set_yticks([-1, 0, 1], ["against", "0", "for"], fontsize=7)
    if len(axes) > 2:
        words = (
            f"evidence: {shares_line(lime, classes)}\n"
            f"R² of the local fit {lime.r2[lime.target]:.2f}, stability {explained.stability:.2f}"
        )
        _text(axes[2], 0.0, 0.5, words, size=8, va="center", ha="left", in_layout=False)


def _title(explained: ImageExplanation) -> str:
    lines = [_short(printable(explained.path), 110)]
    predicted, second = explained.predicted, explained.second
    words = f"predicted {predicted[0]} {predicted[1]:.2f}, then {second[0]} {second[1]:.2f}"
    if explained.truth is not None:
        words += f"; is {explained.truth}"
    if explained.explained[0] != predicted[0]:
        words += f"; maps explain {explained.explained[0]} {explained.explained[1]:.2f}"
    return "\n".join([*lines, _short(printable(words), 150)])


def _picture(axis: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    axis.imshow(pixels)
    axis.set_title(_short(title, 26), fontsize=7.5, pad=3, parse_math=False)


def _text(axis: Axes, x: float, y: float, text: str, *, size: float, **options: Any) -> None:
    axis.text(x, y, text, transform=axis.transAxes, fontsize=size, parse_math=False, **options)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"
