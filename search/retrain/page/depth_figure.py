"""The decision on the depth of retraining as a picture: the blocks in a row, how far their maps moved, what can be
read from each in the new month, and the freeze depth, between what stays frozen and what is trained."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explain.fonts import use_fonts
from lightning_modules.errors import printable
from search.retrain.month.record import DepthDecision

__all__ = ["depth_figure", "depth_title"]

_FROZEN, _TRAINED, _LINE = "#e4eef7", "#fdf0e2", "#b5341e"  # as in the figure of a search's evidence
_MOVED, _STILL, _PROBE = "#d97b1f", "#b9c0c8", "#1f4e79"
_LEFT = 1.9  # inches


def depth_title(decision: DepthDecision) -> str:
    """The decision in a few words."""
    names = list(decision.by_block)
    if decision.action == "none":
        return "Nothing is retrained"
    if decision.action == "head":
        return f"The head is retrained: all {len(names)} blocks stay frozen"
    if decision.action == "search":
        return "A full search, from the pre-trained network"
    depth = decision.depth or 0
    trained = "every block" if depth == 0 else f"blocks from {printable(names[depth])} on"
    return f"Retrained: {trained}, and the head"


def depth_figure(decision: DepthDecision) -> Figure:
    """Blocks in a row: shift of the maps above, accuracy of the probes below, the chosen freeze depth through both."""
    use_fonts()
    names = list(decision.by_block)
    width = max(7.0, 0.85 * (len(names) + 1) + _LEFT)
    figure = Figure(figsize=(width, 4.5), dpi=110)
    side = {"left": _LEFT / width, "right": 1 - 0.15 / width, "top": 0.8, "bottom": 0.11, "hspace": 0.2}
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={**side, "height_ratios": (1, 1.3)})
    axes: tuple[Axes, Axes] = (above, below)
    for one in axes:
        _sides(one, decision, len(names))
        one.spines[["top", "right", "left", "bottom"]].set_visible(False)
        one.tick_params(length=0)
        one.set_yticks([])
        one.axhline(0, color="0.45", linewidth=0.8)
    _shifts(above, decision)
    _probes(below, decision)
    below.set_xlim(0, len(names) + 0.9)
    size = max(5.5, min(9.0, 95 / (len(names) + 1)))
    labels = [*(_short(name) for name in names), "head"]
    below.set_xticks([*(k + 0.5 for k in range(len(names))), len(names) + 0.45], labels, fontsize=size)
    for label in below.get_xticklabels():
        label.set_parse_math(False)
    figure.text(0.02, 0.965, depth_title(decision), fontsize=12.5, weight="bold", va="top", parse_math=False)
    figure.text(0.02, 0.9, _subtitle(decision), fontsize=8.5, color="0.3", va="top", parse_math=False)
    return figure


def _sides(axes: Axes, decision: DepthDecision, blocks: int) -> None:
    """What stays frozen and what is trained, where the decision says so."""
    end = blocks + 0.9
    if decision.action == "none":
        axes.axvspan(0, end, color=_FROZEN, linewidth=0)
    elif decision.depth is None:
        axes.axvspan(0, end, color=_TRAINED, linewidth=0)
    else:
        axes.axvspan(0, decision.depth, color=_FROZEN, linewidth=0)
        axes.axvspan(decision.depth, end, color=_TRAINED, linewidth=0)
        axes.axvline(decision.depth, color=_LINE, linewidth=1.8, zorder=4)


def _shifts(axes: Axes, decision: DepthDecision) -> None:
    blocks = list(decision.by_block.values())
    highest = max([0.3, *(block.shift for block in blocks)])
    axes.set_ylim(0, 1.45 * highest)
    for k, block in enumerate(blocks):
        axes.bar(k + 0.5, block.shift, 0.62, color=_MOVED if block.moved else _STILL, zorder=2)
        p = "p < 0.01" if block.p_value < 0.01 else f"p {block.p_value:.2f}"
        axes.annotate(
            f"{block.shift:.2f}", (k + 0.5, block.shift), (0, 10), textcoords="offset points", ha="center",
            fontsize=8, weight="bold" if block.moved else "normal", zorder=5,
        )  # fmt: skip
        axes.annotate(p, (k + 0.5, block.shift), (0, 3), textcoords="offset points", ha="center", fontsize=6,
                      color="0.35", zorder=5)  # fmt: skip
    _label(axes, "how far maps moved", "KS distance, old against new;\norange: beyond chance")
    end = axes.get_ylim()[1]
    if decision.depth is not None:
        if decision.depth > 0:
            axes.text(decision.depth - 0.08, end, "◀ frozen", ha="right", va="bottom", fontsize=8, color="#2f6da8",
                      weight="bold")  # fmt: skip
        axes.text(decision.depth + 0.08, end, "trained ▶", ha="left", va="bottom", fontsize=8, color="#b8650f",
                  weight="bold")  # fmt: skip


def _probes(axes: Axes, decision: DepthDecision) -> None:
    blocks = list(decision.by_block.values())
    known = [block.probe for block in blocks if not math.isnan(block.probe)]
    top = max([decision.reference, decision.accuracy, *known])
    axes.set_ylim(0, 1.18 * top if top > 0 else 1)
    for k, block in enumerate(blocks):
        if math.isnan(block.probe):
            axes.text(k + 0.5, 0.02 * top, "?", ha="center", va="bottom", fontsize=9, color="0.4")
            continue
        _bar(axes, k + 0.5, block.probe, _PROBE, top)
    end = len(blocks) + 0.86
    _bar(axes, len(blocks) + 0.45, decision.accuracy, _LINE, top)
    axes.plot([0.04, end], [decision.reference] * 2, "--", color="0.25", linewidth=1, zorder=3)
    axes.text(0.06, decision.reference + 0.015 * top, f"the champion before: {decision.reference:.0%}", fontsize=7.5,
              va="bottom", color="0.2", zorder=5)  # fmt: skip
    _label(axes, "read in the new month", "right answers, new images:\nblue a linear classifier on a block,\nred the "
           "champion itself")  # fmt: skip


def _bar(axes: Axes, x: float, share: float, colour: str, top: float) -> None:
    axes.bar(x, share, 0.62, color=colour, zorder=2)
    inside = share > 0.12 * top
    axes.text(
        x, share + (-0.02 if inside else 0.01) * top, f"{share:.0%}", ha="center", va="top" if inside else "bottom",
        fontsize=8, color="white" if inside else "0.2", zorder=5,
    )  # fmt: skip


def _label(axes: Axes, text: str, small: str) -> None:
    middle = sum(axes.get_ylim()) / 2
    axes.annotate(text, (0, middle), (-8, 3), textcoords="offset points", ha="right", va="bottom", fontsize=8.5)
    axes.annotate(small, (0, middle), (-8, -1), textcoords="offset points", ha="right", va="top", fontsize=6.5,
                  color="0.4", linespacing=1.3)  # fmt: skip


def _subtitle(decision: DepthDecision) -> str:
    value, low, high = (-100 * one for one in (decision.loss[0], decision.loss[2], decision.loss[1]))
    change = f"accuracy {value:+.1f} points against before (95 % interval {low:+.1f} to {high:+.1f})"
    features = "the champion's features moved" if decision.features_p < 0.05 else "no shift of its features shown"
    return f"{change}; {features}; {decision.images} new images"


def _short(name: str, most: int = 12) -> str:
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"
