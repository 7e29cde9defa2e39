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
    "cam": ("#009e73", "^", "CAM, trained heads"),
    "activation": ("#000000", "D", "no gradient (activation)"),
}


def draw(results: Sequence[dict[str, Any]]) -> Path:
    """Draw a panel for each task; returns the file."""
    figure = Figure(figsize=(4.1 * len(results), 4.3), layout="constrained", dpi=100)
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for axis, result in zip(axes, results, strict=True):
        _panel(axis, result)
    axes[0].set_ylabel("share of the map on the defects")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE)
    return FIGURE


def _panel(axis: Axes, result: dict[str, Any]) -> None:
    blocks = list(result["ceiling"])
    for method, (colour, marker, label) in _STYLES.items():
        rows = [row for row in result["rows"] if row["method"] == method]
        places = [blocks.index(row["block"]) for row in rows]
        mean, low, high = zip(*(row["energy"] for row in rows), strict=True)
        axis.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
        axis.plot(places, mean, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=label)
    drawn = [[v for row in result["rows"] if row["block"] == b for v in row["random_energy"]] for b in blocks]
    span = ([min(values) for values in drawn], [max(values) for values in drawn])
    axis.fill_between(
        range(len(blocks)), *span, color="0.6", alpha=0.35, linewidth=0, label="random weights, all methods"
    )
    axis.plot(
        list(result["ceiling"].values()), color="0.45", linestyle=":", linewidth=1.2, label="best a block could do"
    )
    axis.axhline(result["chance"], color="0.2", linestyle="--", linewidth=1, label="chance")
    axis.set_title(result["about"], fontsize=9)
    axis.set_xticks(range(len(blocks)), blocks, rotation=40, ha="right", fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", linewidth=0.4, color="0.85")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
