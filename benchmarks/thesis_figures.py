"""The thesis's Figures 15, 16 and 20 from MLflow runs: class frequencies, LeNet-5's training, all models' training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.thesis_tables import DataSetRuns
from explain.fonts import use_fonts
from search.thesis.runs import ArmRun

__all__ = ["classes_figure", "lenet_figure", "training_figure"]

# Colours of Okabe and Ito; optimizers beyond the thesis's five go on from the start.
_COLOURS = ("#000000", "#0072b2", "#56b4e9", "#d55e00", "#e69f00")
_ADAPTIVE = ("adam", "rmsprop", "nadam", "adamw", "adagrad", "adadelta")


def classes_figure(sets: Sequence[DataSetRuns], root: Path) -> Figure:
    """Images by class and split of every data set (Figure 15).

    Args:
        sets: the data sets.
        root: folder of the MLflow store, which holds the counts.
    """
    figure, axes = _row(len(sets), 4.2, 3.4)
    for axis, data in zip(axes, sets, strict=True):
        part = next(iter(data.parts.values()))
        file = root / "artifacts" / part.run_id / "artifacts" / "classes.json"
        counts: dict[str, dict[str, int]] = json.loads(file.read_text(encoding="utf-8"))
        classes = list(next(iter(counts.values())))
        left = np.zeros(len(classes))
        for (name, by_class), colour in zip(counts.items(), ("#1f4e79", "#7fa7cf", "#c9c9c9"), strict=False):
            values = np.array([by_class[c] for c in classes])
            axis.barh(classes, values, left=left, color=colour, label=name)
            left += values
        axis.invert_yaxis()
        axis.set_title(f"{data.name} ({int(left.sum())} used)", fontsize=9, parse_math=False)
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def lenet_figure(sets: Sequence[DataSetRuns]) -> Figure:
    """Training and validation accuracy of the two LeNet-5 by epoch (Figure 16)."""
    figure, axes = _row(len(sets), 3.6, 2.8)
    for axis, data in zip(axes, sets, strict=True):
        for run, colour in zip(data.arms("lenet"), ("#0072b2", "#d55e00"), strict=False):
            for metric, style in (("train_accuracy", "--"), ("val_accuracy", "-")):
                values = run.curves[metric]
                words = f"{run.arm}, {'training' if style == '--' else 'validation'}"
                axis.plot(range(1, len(values) + 1), values, style, color=colour, linewidth=1.2, label=words)
        _epochs(axis, data.name)
    axes[0].set_ylabel("accuracy", fontsize=8)
    axes[0].legend(fontsize=6.5, frameon=False)
    return figure


def training_figure(sets: Sequence[DataSetRuns]) -> Figure:
    """Validation accuracy of every model by epoch, coloured by optimizer, adaptive ones dashed (Figure 20).

    LeNet-5 has three times the epochs and a figure of its own; it is left out where there is anything else.
    """
    figure, axes = _row(len(sets), 3.9, 3.4)
    seen: dict[str, Any] = {}
    for axis, data in zip(axes, sets, strict=True):
        parts = [part for part in data.parts.values() if part.part != "rates"]
        runs = [run for part in parts if part.part != "lenet" for run in part.arms]
        runs = runs or [run for part in parts for run in part.arms]
        for run in runs:
            optimizer = run.params["optimizer"]
            values = run.curves["val_accuracy"]
            line = axis.plot(
                range(1, len(values) + 1), values, color=_colour(run, runs), linewidth=0.9, alpha=0.5,
                linestyle="--" if optimizer in _ADAPTIVE else "-", marker="." if len(values) == 1 else None,
            )[0]  # fmt: skip
            seen.setdefault(optimizer, line)
        _epochs(axis, data.name)
    axes[0].set_ylabel("validation accuracy", fontsize=8)
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=len(seen), frameon=False, fontsize=8)
    return figure


def _colour(run: ArmRun, runs: Sequence[ArmRun]) -> str:
    names = list(dict.fromkeys(other.params["optimizer"] for other in runs))
    order = [*("sgd", "momentum", "nag", "adam", "rmsprop"), *names]
    return _COLOURS[order.index(run.params["optimizer"]) % len(_COLOURS)]


def _row(count: int, width: float, height: float) -> tuple[Figure, Any]:
    use_fonts()
    figure = Figure(figsize=(max(width * count, 5.6), height), layout="constrained", dpi=90)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _epochs(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.set_xlabel("epoch", fontsize=8)
    axis.set_ylim(0, 1.02)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25)
