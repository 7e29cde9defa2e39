"""Figures of a Pareto front: the trials by score and spread of their maps, and maps of the front's two ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from explain.fonts import use_fonts
from explain.overlay import as_pixels, map_overlay

__all__ = ["End", "front_figure", "maps_figure"]

_SIDE = 1.5  # inches of a picture
_PIXELS = 192  # about so many are drawn for the side of one


@dataclass(frozen=True, eq=False)
class End:
    """One end of the front.

    Attributes:
        title: which trial, with what.
        maps: of the true classes of the images shown, (N, h, w).
    """

    title: str
    maps: Tensor


def front_figure(
    points: Sequence[tuple[float, float, float | None]], front: Sequence[tuple[float, float]], metric: str
) -> Figure:
    """Every trial, and a line through those of the front.

    Args:
        points: (score, spread of the maps, beta) of each trial; beta None where it is not searched.
        front: (score, spread) of the front, the best score first.
        metric: name of the score.
    """
    use_fonts()
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    scores, spreads = zip(*front, strict=True)
    axes.step(spreads, scores, where="pre", color="0.4", linewidth=1.2, zorder=1)
    betas = sorted({beta for *_, beta in points if beta is not None})
    colours = colormaps["viridis"].resampled(max(len(betas), 2))
    for number, beta in enumerate(betas or [None]):
        mine = [(score, spread) for score, spread, of in points if of == beta]
        label = "trial" if beta is None else f"beta {beta:g}"
        axes.scatter(
            [spread for _, spread in mine], [score for score, _ in mine], color=colours(number), s=34, label=label
        )
    axes.scatter(spreads, scores, facecolors="none", edgecolors="#b5341e", s=90, linewidths=1.6, label="on the front")
    axes.set_xlabel("map spread: entropy / ln(h w), a dead map counting 1 (lower is sharper)")
    axes.set_ylabel(f"validation {metric.replace('_', ' ')}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def maps_figure(images: Tensor, names: Sequence[str], ends: Sequence[End]) -> Figure:
    """A column an image, a row for the images and for the maps of each end.

    Args:
        images: (N, 3, H, W) in [0, 1].
        names: their true classes.
        ends: one or two.
    """
    use_fonts()
    rows = len(ends) + 1
    figure = Figure(figsize=(_SIDE * len(names) + 0.4, (_SIDE + 0.35) * rows), layout="constrained")
    scale = max(1, _PIXELS // max(images.shape[2:]))
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    for part, end in zip(parts, [None, *ends], strict=True):
        part.suptitle("validation images" if end is None else end.title, fontsize=8.5)
        for column, axes in enumerate(part.subplots(1, len(names), squeeze=False)[0]):
            image = images[column]
            axes.imshow(as_pixels(image, scale) if end is None else map_overlay(image, end.maps[column], scale))
            axes.set_axis_off()
            if end is None:
                axes.set_title(names[column], fontsize=8)
            elif not end.maps[column].any():
                axes.set_title("dead map", fontsize=8)
    return figure
