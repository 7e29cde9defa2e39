"""Figures of a search: class histogram, training curves of all trials, confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from explain.fonts import use_fonts

__all__ = ["confusion_figure", "curves_figure", "histogram_figure"]


def histogram_figure(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Images by class, stacked by split (the thesis's Figure 15).

    Args:
        counts: split name -> class -> images.
    """
    use_fonts()
    classes = list(next(iter(counts.values())))
    figure = Figure(figsize=(7, 0.34 * len(classes) + 1.4), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(classes))
    for (split, by_class), colour in zip(counts.items(), ("#1f4e79", "#7fa7cf", "#c9c9c9"), strict=False):
        values = np.array([by_class[c] for c in classes])
        axes.barh(classes, values, left=left, label=f"{split} ({values.sum()})", color=colour)
        left += values
    for position, total in enumerate(left):
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
        metric: name of the score.
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
    """Confusion matrix, rows the true classes; colour is the share of the row, the number is the count."""
    use_fonts()
    side = 0.55 * len(classes) + 2.4
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(confusion > 0):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.7)
    return figure
