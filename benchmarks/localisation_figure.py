"""The figure of `benchmarks.localisation`: energy pointing by block, a line by method, with chance and the controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "localisation.png"
# Colours of Okabe and Ito, told apart by colour-blind readers; the markers tell them apart in grey.
_STYLES = {
    "gradcam": ("#0072b2", "o", "Grad-CAM"),
    "layercam": ("#d55e00", "s", "LayerCAM"),
    "hirescam": ("#cc79a7", "v", "HiResCAM"),
    "cam": ("#009e73", "^", "CAM, trained heads"),
    "activation": ("#000000", "D", "activation (no gradient)"),
}


def draw(results: Sequence[dict[str, Any]]) -> Path:
    """Draw a panel for each task, two in a row; returns the file."""
    lines = (len(results) + 1) // 2
    figure = Figure(figsize=(9.4, 3.2 * lines + 0.7), layout="constrained", dpi=100)
    axes = figure.subplots(lines, 2, squeeze=False)
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    for axis, result in zip(axes.flat, results, strict=False):
        _panel(axis, result)
    for row in axes:
        row[0].set_ylabel("share of the map on the\ndefects, above chance", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE)
    return FIGURE


def _panel(axis: Axes, result: dict[str, Any]) -> None:
    blocks, chance = list(result["ceiling"]), result["chance"]
    for method, (colour, marker, label) in _STYLES.items():
        rows = [row for row in result["rows"] if row["method"] == method]
        places = [blocks.index(row["block"]) for row in rows]
        mean, low, high = zip(*(row["over_chance"] for row in rows), strict=True)
        axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(places, mean, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=label)
    drawn = [[v - chance for r in result["rows"] if r["block"] == b for v in r["random_energy"]] for b in blocks]
    low, high = [min(values) for values in drawn], [max(values) for values in drawn]
    axis.fill_between(
        range(len(blocks)), low, high, color="0.86", zorder=0, linewidth=0, label="random weights, any method"
    )
    axis.axhline(0, color="0.2", linestyle="--", linewidth=1, label="chance")
    axis.set_title(f"{result['about']} (chance {chance:.3f})", fontsize=9.5)
    axis.set_xticks(range(len(blocks)), blocks, fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", linewidth=0.4, color="0.85")
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
