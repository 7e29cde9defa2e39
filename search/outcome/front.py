"""The Pareto front of a search for two things at once: a high validation score and sharp maps.

A trial's `map_spread` (see `search.trial.result.TrialResult`) is the second objective, to be minimised. It is kept
beside the score of every trial; the sampler is shown both, and the front is what no other trial beats in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from explain.fonts import use_fonts
from explain.overlay import as_pixels, map_overlay
from lightning_modules.training.fostering import Fostering, target_block
from search.outcome.summary import titled_table
from search.study.record import StudyRecord, TrialRecord
from search.study.run import StudyRun
from search.study.sampler import slot_seed
from search.trial.result import describe_params
from search.trial.training import train_final

__all__ = ["log_front", "pareto_front", "print_front"]

_IMAGES = 6
_SIDE = 1.5  # inches of a picture
_PIXELS = 192  # about so many are drawn for the side of one


def pareto_front(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials that no other beats in both, the best score first; of equals the earlier.

    One trial beats another if neither its score is lower nor its maps are wider, and one of the two is better.
    """
    front: list[TrialRecord] = []
    for trial in sorted(_measured(trials), key=lambda t: (-t.value, _spread(t), t.slot)):
        if not front or _spread(trial) < _spread(front[-1]):
            front.append(trial)
    return front


def _measured(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials whose maps were measured."""
    return [t for t in trials if t.outcome == "complete" and t.map_spread is not None]


def _spread(trial: TrialRecord) -> float:
    return 1.0 if trial.map_spread is None else trial.map_spread


def log_front(run: StudyRun) -> None:
    """Log the front as a table and a figure, and the maps of its two ends.

    Of a trial that is not the best no weights are kept, so the ends are trained once more, as their trials
    were.
    """
    task, record, tracker, parent = run.task, run.record, run.tracker, run.parent
    trials = record.finished()
    front = pareto_front(trials)
    if not front or record.front_trials == len(trials):  # MLflow appends to a table that is there
        return
    table = [{"trial": t.slot, run.metric: t.value, "map_spread": _spread(t), **t.params.searched()} for t in front]
    tracker.log_table(parent, pd.DataFrame(table), "front.json")
    tracker.log_figure(parent, _front_figure(_measured(trials), front, run.metric), "figures/front.png")
    rows = task.splits.folds[0].val
    labels = task.index.labels[rows]
    chosen = np.array([rows[labels == k][0] for k in range(len(task.classes)) if (labels == k).any()][:_IMAGES])
    images = task.inputs(chosen, np.zeros_like(chosen))
    both = front if len(front) == 1 else [front[0], front[-1]]
    ends = [_end(run, trial, images, chosen) for trial in both]
    names = [task.classes[task.index.labels[row]] for row in chosen]
    tracker.log_figure(parent, _maps_figure(images.float().cpu(), names, ends), "figures/front_maps.png")
    record.front_trials = len(trials)


def print_front(console: Console, record: StudyRecord, metric: str) -> None:
    """The front as a table."""
    table = titled_table("Front: no trial is better in both (map spread: 0 one position, 1 uniform or dead)")
    for name in ("trial", metric, "map spread", "parameters"):
        table.add_column(name, justify="left" if name == "parameters" else "right", no_wrap=True)
    front = pareto_front(record.finished())
    for trial in front:
        table.add_row(str(trial.slot), f"{trial.value:.4f}", f"{_spread(trial):.3f}", describe_params(trial.params))
    console.print(table)
    best = record.best()
    if best is not None and front and best.slot == front[0].slot:
        winner = "The winner is the end with the best score."
    else:  # of equal scores the deeper freeze wins, whatever its maps
        winner = "The winner has the best score of all; of equal scores the deeper freeze wins."
    console.print(f"{winner} No trial was stopped early.", highlight=False)


def _end(run: StudyRun, trial: TrialRecord, images: Tensor, rows: NDArray[np.int64]) -> tuple[str, Tensor]:
    """A trial in words, and its network's maps of the true classes of these images, (N, h, w)."""
    task, params = run.task.of(trial.params.network), trial.params
    seed = slot_seed(run.settings.seed, trial.slot)
    net = train_final(
        task, params, seed, task.splits.folds[0].train, task.settings.trainer.epochs, cancelled=run.stopping
    )
    fostering = Fostering(net, target_block(net, run.settings.trainer.fostering.block), 0.0)
    labels = torch.tensor(task.index.labels[rows], device=images.device)
    with torch.no_grad():
        _, maps = fostering.observe(net.prefix(images, 0), labels, 0)
    title = f"trial {trial.slot}: {describe_params(params)}, score {trial.value:.3f}, spread {_spread(trial):.3f}"
    return title, maps.float().cpu()


def _front_figure(measured: Sequence[TrialRecord], front: Sequence[TrialRecord], metric: str) -> Figure:
    """Every trial, and a line through those of the front."""
    use_fonts()
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    scores, spreads = [t.value for t in front], [_spread(t) for t in front]
    axes.step(spreads, scores, where="pre", color="0.4", linewidth=1.2, zorder=1)
    betas = sorted({t.params.fostering_beta for t in measured if t.params.fostering_beta is not None})
    colours = colormaps["viridis"].resampled(max(len(betas), 2))
    for number, beta in enumerate(betas or [None]):
        mine = [t for t in measured if t.params.fostering_beta == beta]
        label = "trial" if beta is None else f"beta {beta:g}"
        axes.scatter([_spread(t) for t in mine], [t.value for t in mine], color=colours(number), s=34, label=label)
    axes.scatter(spreads, scores, facecolors="none", edgecolors="#b5341e", s=90, linewidths=1.6, label="on the front")
    axes.set_xlabel("map spread: entropy / ln(h w), a dead map counting 1 (lower is sharper)")
    axes.set_ylabel(f"validation {metric.replace('_', ' ')}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _maps_figure(images: Tensor, names: Sequence[str], ends: Sequence[tuple[str, Tensor]]) -> Figure:
    """A column an image, a row for the images and for the maps of each end.

    Args:
        images: (N, 3, H, W) in [0, 1].
        names: their true classes.
    """
    use_fonts()
    rows = len(ends) + 1
    figure = Figure(figsize=(_SIDE * len(names) + 0.4, (_SIDE + 0.35) * rows), layout="constrained")
    scale = max(1, _PIXELS // max(images.shape[2:]))
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    for part, (title, maps) in zip(parts, [("validation images", None), *ends], strict=True):
        part.suptitle(title, fontsize=8.5)
        for column, axes in enumerate(part.subplots(1, len(names), squeeze=False)[0]):
            image = images[column]
            axes.imshow(as_pixels(image, scale) if maps is None else map_overlay(image, maps[column], scale))
            axes.set_axis_off()
            if maps is None:
                axes.set_title(names[column], fontsize=8)
            elif not maps[column].any():
                axes.set_title("dead map", fontsize=8)
    return figure
