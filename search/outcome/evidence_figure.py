"""One picture of what was known before a search, and what came of it: blocks, maps, scores, prior, and the result.

Block l spans l-1..l on the horizontal axis, so freeze depth k is the boundary behind block k: a bar of the prior stands
exactly between the blocks that this depth freezes and those that it trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from explain.evidence.scores import Numbers
from explain.fonts import use_fonts
from explain.overlay import as_pixels, map_overlay
from search.evidence.record import Evidence, ScorerEvidence
from search.outcome.figures import shortened
from search.outcome.scorecard import SeenDepth
from search.words import spoken

__all__ = ["depth_words", "evidence_figure", "prior_words"]

_WIDTH, _LEFT, _RIGHT = 9.0, 1.85, 0.15  # inches, as all that follow
_HEADER, _BEST, _ROW, _PRIOR, _FOOTER, _GAP = 0.95, 1.45, 0.36, 1.05, 0.7, 0.28
_DEPTHS = 0.05  # below which the freeze depths stand where there was no prior
_LARGEST_MAP = 1.3
_CELL = 0.92  # share of a block's width that is drawn on
_FROZEN, _TRAINED, _LINE = "#e4eef7", "#fdf0e2", "#b5341e"
_SPEAKS = LinearSegmentedColormap.from_list("speaks", ["#d97b1f", "#f7f7f7", "#2f6da8"])
_WORDS = {
    "faithful_localisation": "sees what carries the class",
    "cam_stability": "looks there after training too",
    "train_validation_disagreement": "memorises when it is trained",
    "agreement_of_change": "training changes it at random",
}


@dataclass(frozen=True)
class _Place:
    """Panels are placed from the top of the page, in inches."""

    figure: Figure
    height: float
    blocks: int

    @property
    def unit(self) -> float:
        """Width of a block."""
        return (_WIDTH - _LEFT - _RIGHT) / (self.blocks + 1)

    def panel(self, top: float, height: float) -> Axes:
        """Axes over all depths, without a frame."""
        bottom, tall = 1 - (top + height) / self.height, height / self.height
        axes = self.figure.add_axes((_LEFT / _WIDTH, bottom, self.unit * (self.blocks + 1) / _WIDTH, tall))
        axes.set_facecolor("none")
        axes.set_xlim(-0.5, self.blocks + 0.5)
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def label(self, axes: Axes, y: float, text: str, small: str = "") -> None:
        """Words left of a panel, at a height of its data."""
        x = -0.5 - 0.12 / self.unit
        axes.text(x, y, text, ha="right", va="bottom" if small else "center", fontsize=8, clip_on=False)
        if small:
            axes.text(x, y, small, ha="right", va="top", fontsize=6, color="0.4", clip_on=False)


def evidence_figure(
    evidence: Evidence,
    seen: Mapping[int, SeenDepth],
    chosen: int | None,
    *,
    metric: str,
    image: Tensor | None = None,
    label: str = "",
    network: str = "",
) -> Figure:
    """The blocks in a row with maps, scores and prior, and on top the best score reached at each freeze depth.

    What is not there (maps, scores of blocks, a prior that steered) has no panel.

    Args:
        seen: what was reached at each freeze depth; without any, and without a winner, it has no panel.
        chosen: the winner's freeze depth, 0..L; None while there is no winner: the figure then says of none that it
            stays frozen.
        image: the image `evidence.maps.row`, (3, H, W), in [0, 1]; maps are drawn over it.
        network: named in the title where the study has several; then `chosen` is of this one's best trial.
    """
    use_fonts()
    blocks = len(evidence.blocks)
    rows = _shown(evidence)
    side = min(_CELL * (_WIDTH - _LEFT - _RIGHT) / (blocks + 1), _LARGEST_MAP)
    shape = (1, 1) if image is None else tuple(image.shape[1:])
    maps = 0.3 if evidence.maps is None else 0.3 + side * min(shape[0] / shape[1], 1.6)
    scores = len(rows) * _ROW
    best = 0.0 if chosen is None and not seen else _BEST + _GAP
    prior = _DEPTHS if evidence.steering is None else _PRIOR
    total = _HEADER + best + maps + 0.1 + scores + _GAP + prior + _FOOTER
    figure = Figure(figsize=(_WIDTH, total), dpi=110)
    place = _Place(figure, total, blocks)
    _draw_sides(place, chosen, total)
    if best:
        _draw_best(place, evidence, seen, chosen, metric)
    top = _HEADER + best
    _draw_blocks(place, evidence, top, maps, side, image, label)
    top += maps + 0.1
    if rows:
        _draw_rows(place, rows, top, scores)
    if evidence.steering is None:
        _name_depths(place, place.panel(top + scores + _GAP, _DEPTHS))
    else:
        _draw_prior(place, evidence, chosen, top + scores + _GAP)
    notes = ["cells: beside their row's mean, blue speaks for freezing, orange for training; number: z against chance"]
    notes += [f"{row.name}: of freeze depths; number: the score" for row in rows if row.kind == "depth"]
    words = "; ".join(notes if any(row.kind == "block" for row in rows) else notes[1:])
    figure.text(0.5, 0.04 / total, words, ha="center", va="bottom", fontsize=6.5, color="0.35")
    _draw_title(figure, evidence, seen, chosen, metric, total, network)
    return figure


def _shown(evidence: Evidence) -> list[ScorerEvidence]:
    """Scorers of blocks that read maps, and the one that the prior comes from where it is another that looks."""
    names = [name for name in _WORDS if name in evidence.scorers]
    if evidence.prior in evidence.scorers and evidence.prior not in (*names, "evidence"):
        names.append(evidence.prior)
    rows = [evidence.scorers[name] for name in names]
    return [row for row in rows if row.kind == "block" or row.cost.forward_passes]


def depth_words(blocks: int, chosen: int | None) -> str:
    """What a freeze depth 0..blocks means; None before one was chosen."""
    if chosen is None:
        return "Before the search: what is known of each block"
    if chosen == 0:
        return f"Nothing stays frozen: all {blocks} blocks are trained"
    if chosen == blocks:
        return f"All {blocks} blocks stay frozen: only the head is trained"
    frozen = f"{_named(1, chosen).capitalize()} {'stays' if chosen == 1 else 'stay'} frozen"
    return f"{frozen}; {_named(chosen + 1, blocks)} and the head are trained"


def prior_words(evidence: Evidence) -> str:
    """What early trials were drawn by."""
    if evidence.steering is None:
        return "no prior: the freeze depth was left to the sampler"
    return f"the prior ({evidence.prior.replace('_', ' ')}) preferred freeze depth {evidence.preferred}"


def _draw_title(
    figure: Figure, evidence: Evidence, seen: Mapping[int, SeenDepth], chosen: int | None, metric: str, height: float,
    network: str,
) -> None:  # fmt: skip
    title = depth_words(len(evidence.blocks), chosen)
    title = f"{network}: {title[0].lower()}{title[1:]}" if network else title
    figure.text(0.02, 1 - 0.13 / height, title, fontsize=12, weight="bold", va="top")
    there = None if chosen is None else seen.get(chosen)
    reached = "" if there is None else f"best validation {spoken(metric)} there {there.best:.3f}; "
    figure.text(0.02, 1 - 0.4 / height, reached + prior_words(evidence), fontsize=8.5, color="0.3", va="top")


def _draw_sides(place: _Place, chosen: int | None, total: float) -> None:
    """What is frozen and what is trained, behind everything, and the line between them."""
    axes = place.panel(_HEADER - 0.22, total - _HEADER + 0.22 - _FOOTER)
    axes.set_zorder(-1)
    axes.set_ylim(0, 1)
    if chosen is None:
        return
    axes.axvspan(-0.5, chosen, color=_FROZEN, linewidth=0)
    axes.axvspan(chosen, place.blocks + 0.5, color=_TRAINED, linewidth=0)
    axes.axvline(chosen, color=_LINE, linewidth=1.6)
    room = 0.08 / place.unit
    if chosen > 0:
        axes.text(chosen - room, 0.99, "◀ frozen", ha="right", va="top", fontsize=8, color="#2f6da8", weight="bold")
    if chosen < place.blocks:
        axes.text(chosen + room, 0.99, "trained ▶", ha="left", va="top", fontsize=8, color="#b8650f", weight="bold")


def _draw_best(
    place: _Place, evidence: Evidence, seen: Mapping[int, SeenDepth], chosen: int | None, metric: str
) -> None:
    axes = place.panel(_HEADER, _BEST)
    best = np.array([seen[k].best for k in seen])
    spread = max(float(np.ptp(best)), 0.02) if len(best) else 1.0
    middle = float(best.max() + best.min()) / 2 if len(best) else 0.5
    bottom, _ = axes.set_ylim(middle - 0.95 * spread, middle + 0.95 * spread)
    axes.plot(list(seen), best, color="0.7", linewidth=0.8, zorder=1)
    tight = place.unit < 0.45
    for k in range(place.blocks + 1):
        if k not in seen:
            words = "not tried" if evidence.depths[0] <= k <= evidence.depths[1] else "not searched"
            axes.text(k, bottom, words, rotation=90, ha="center", va="bottom", fontsize=6.5, color="0.45",
                      bbox=_ground(k, chosen))  # fmt: skip
            continue
        one, colour = seen[k], _LINE if k == chosen else "#1f4e79"
        axes.plot(k, one.best, "o", markersize=7, color=colour, markerfacecolor="white" if one.stopped else colour)
        text = f"{'≥ ' if one.stopped else ''}{one.best:.{2 if tight else 3}f}"
        axes.annotate(
            text, (k, one.best), (0, 8), textcoords="offset points", ha="center", fontsize=6 if tight else 7.5,
            weight="bold" if k == chosen else "normal", bbox=_ground(k, chosen),
        )  # fmt: skip
        count = f"{one.trials}" if tight else f"{one.trials} trial{'s' * (one.trials > 1)}"
        axes.text(k, bottom, count, ha="center", va="bottom", fontsize=6, color="0.45", bbox=_ground(k, chosen))
    place.label(axes, middle, f"best {spoken(metric)}", "on validation images, by freeze depth")
    if any(one.stopped for one in seen.values()):
        place.label(axes, middle - 0.45 * spread, "", "○ ≥: that trial was stopped early")


def _draw_blocks(
    place: _Place, evidence: Evidence, top: float, height: float, side: float, image: Tensor | None, label: str
) -> None:
    axes = place.panel(top, height)
    axes.set_ylim(height, 0)
    half = side / place.unit / 2
    maps = evidence.maps
    size = max(5.0, min(8.0, 105 * place.unit / max(len(name) for name in evidence.blocks)))
    for number, name in enumerate(evidence.blocks):
        centre, shown = number + 0.5, shortened(name, int(105 * place.unit / size))
        axes.text(centre, 0.13, shown, ha="center", va="center", fontsize=size, parse_math=False)
        if maps is None:
            axes.add_patch(Rectangle((number + 0.04, 0.0), _CELL, height, fill=False, edgecolor="0.6"))
            continue
        values = torch.from_numpy(maps.example[number].astype(np.float32))
        canvas = torch.full((3, 96, 96), 0.5) if image is None else image
        drawn = map_overlay(canvas, values, max(1, -(-192 // max(canvas.shape[1:]))))
        axes.imshow(drawn, extent=(centre - half, centre + half, height, 0.28), aspect="auto", zorder=2)
    if maps is None:
        place.label(axes, height / 2, "blocks")
    elif image is not None:
        right = -0.5 - 0.12 / place.unit
        pixels = as_pixels(image, max(1, -(-192 // max(image.shape[1:]))))
        axes.imshow(pixels, extent=(right - 2 * half, right, height, 0.28), aspect="auto", clip_on=False)
        axes.text(right, 0.13, shortened(label, 22), ha="right", va="center", fontsize=8, parse_math=False)
        if side < 1.05:
            x, y = right - 2 * half - 0.08 / place.unit, (height + 0.28) / 2
            axes.text(x, y, "where each\nblock looks", ha="right", va="center", fontsize=8)
    else:
        place.label(axes, (height + 0.28) / 2, "where each block looks")
    axes.set_xlim(-0.5, place.blocks + 0.5)


def _draw_rows(place: _Place, rows: list[ScorerEvidence], top: float, height: float) -> None:
    axes = place.panel(top, height)
    axes.set_ylim(height, 0)
    for number, row in enumerate(rows):
        given = row.z if row.kind == "block" else row.depth_scores
        shown = given if row.kind == "block" else row.values
        start = 0.5 if row.kind == "block" else 0.0
        for position, (strength, value) in enumerate(zip(_strengths(given), shown, strict=True)):
            known = bool(np.isfinite(strength))
            colour = _SPEAKS(0.5 + strength / 2) if known else "0.88"
            corner = (position + start - _CELL / 2, number * _ROW + 0.02)
            axes.add_patch(Rectangle(corner, _CELL, _ROW - 0.04, facecolor=colour, edgecolor="white", linewidth=0.5))
            axes.text(
                position + start, (number + 0.5) * _ROW, _digits(value) if known else "-", ha="center", va="center",
                fontsize=7.5 if place.unit >= 0.45 else 5.5, color="white" if abs(strength) > 0.75 else "black",
            )  # fmt: skip
        place.label(axes, (number + 0.5) * _ROW, _WORDS.get(row.name, "what the prior is made of"), row.name)


def _strengths(values: Numbers) -> Numbers:
    """Distance from the mean as a share of the largest one, in [-1, 1]; NaN where there is no value."""
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(values), np.nan)
    centred = np.where(known, values - values[known].mean(), np.nan)
    largest = float(np.nanmax(np.abs(centred)))
    return centred / largest if largest > 0 else centred


def _draw_prior(place: _Place, evidence: Evidence, chosen: int | None, top: float) -> None:
    axes = place.panel(top, _PRIOR)
    low, high = evidence.depths
    inside = evidence.probabilities[low : high + 1] / evidence.probabilities[low : high + 1].sum()
    axes.set_ylim(0, 1.25 * inside.max())
    for k, probability in enumerate(inside, start=low):
        steers = k == evidence.preferred
        axes.bar(k, probability, 0.6, color="#1f4e79" if steers else "#8fa3b8", zorder=2)
        axes.annotate(
            f"{probability:.0%}" if place.unit >= 0.4 else f"{100 * probability:.0f}", (k, probability), (0, 3.5),
            textcoords="offset points", ha="center", fontsize=7.5, zorder=3, weight="bold" if steers else "normal",
            bbox=_ground(k, chosen),
        )  # fmt: skip
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.plot([low - 0.45, high + 0.45], [1 / len(inside)] * 2, ":", color="0.35", linewidth=0.9, zorder=2.5)
    _name_depths(place, axes)
    place.label(axes, 0.55 * inside.max(), "prior over freeze depths", "where early trials look; dotted: no preference")


def _name_depths(place: _Place, axes: Axes) -> None:
    """Freeze depths below a panel."""
    axes.set_xticks(range(place.blocks + 1))
    axes.tick_params(axis="x", length=0, labelsize=8.5, pad=2)
    axes.set_xlabel("freeze depth: how many leading blocks stay frozen", fontsize=8.5)


def _ground(k: int, chosen: int | None) -> dict[str, Any]:
    """What text at freeze depth k stands on, so that no line runs through it."""
    colour = "white" if chosen in (None, k) else _FROZEN if chosen is not None and k < chosen else _TRAINED
    return {"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 0.6}


def _named(first: int, last: int) -> str:
    if first == last:
        return f"block {first}"
    return f"blocks {first} {'and' if last == first + 1 else 'to'} {last}"


def _digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
