"""The figure of `benchmarks.fostering`: what changes with beta, against beta 0 on the same split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "fostering.png"
# Colours of Okabe and Ito; the markers tell them apart in grey.
_STYLES = (("#0072b2", "o"), ("#d55e00", "s"))
_PANELS = {
    "accuracy": "balanced accuracy",
    "ce": "CAM entropy (nats)",
    "adcc": "ADCC",
    "energy_pointing": "share of the map on the defects",
    "dead_map_rate": "dead maps",
    "average_drop": "average drop",
}


def draw(rows: Sequence[dict[str, Any]]) -> Path:
    """Draw the paired differences to beta 0 with their 95 % intervals; returns the file."""
    figure = Figure(figsize=(9.4, 5.2), layout="constrained", dpi=100)
    tasks = list(dict.fromkeys(row["about"] for row in rows))
    betas = sorted({row["beta"] for row in rows if row["beta"]})
    for axis, (column, title) in zip(figure.subplots(2, 3).flat, _PANELS.items(), strict=True):
        axis.axhline(0, color="0.2", linestyle="--", linewidth=1)
        for (colour, marker), task in zip(_STYLES, tasks, strict=False):
            mine = [row for row in rows if row["about"] == task and f"{column}_change" in row]
            if not mine:
                continue
            places = [betas.index(row["beta"]) + 0.12 * (tasks.index(task) - 0.5) for row in mine]
            mean, low, high = zip(*(row[f"{column}_change"] for row in mine), strict=True)
            errors = [[m - v for m, v in zip(mean, low, strict=True)], [v - m for m, v in zip(mean, high, strict=True)]]
            axis.errorbar(
                places, mean, errors, color=colour, marker=marker, markersize=5, linewidth=1.3, capsize=2.5, label=task
            )
        axis.set_title(title, fontsize=9.5)
        axis.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas], fontsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.grid(axis="y", linewidth=0.4, color="0.85")
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.supxlabel("beta", fontsize=9.5)
    figure.supylabel("change against beta 0, same split", fontsize=9.5)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE)
    return FIGURE
