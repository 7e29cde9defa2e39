"""The Pareto front of a search for two things at once: a high validation score and sharp maps.

A trial's `map_spread` (see `trial_result.TrialResult`) is the second objective, to be minimised. It is kept beside the
score of every trial; the sampler is shown both, and the front is what no other trial beats in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_modules.training.fostering import Fostering, target_block
from search.outcome.front_figure import End, front_figure, maps_figure
from search.study.sampler import slot_seed
from search.study.storage import finished_trials
from search.tracking.tracker import Tracker
from search.trial.result import TrialParams, describe_params
from search.trial.task import Task
from search.trial.training import train_final

__all__ = ["log_front", "pareto_front", "print_front"]

_IMAGES = 6


def pareto_front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials that no other beats in both, the best score first; of equals the earlier.

    One trial beats another if neither its score is lower nor its maps are wider, and one of the two is better.
    """
    complete = [t for t in trials if t.state is TrialState.COMPLETE and "map_spread" in t.user_attrs]
    front: list[FrozenTrial] = []
    for trial in sorted(complete, key=lambda t: (-t.values[0], t.user_attrs["map_spread"], t.user_attrs["slot"])):
        if not front or trial.user_attrs["map_spread"] < front[-1].user_attrs["map_spread"]:
            front.append(trial)
    return front


def log_front(
    task: Task, study: optuna.Study, tracker: Tracker, parent: str, *, cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Log the front as a table and a figure, and the maps of its two ends.

    Of a trial that is not the best no weights are kept, so the ends are trained once more, as their trials were up to
    their best epoch.
    """
    trials = finished_trials(study)
    front = pareto_front(trials)
    if not front or study.user_attrs.get("front_trials") == len(trials):  # MLflow appends to a table that is there
        return
    tracker.log_table(parent, _table(front, task.settings.search.metric), "front.json")
    points = [
        (float(t.values[0]), float(t.user_attrs["map_spread"]), t.params.get("fostering_beta"))
        for t in trials
        if t.state is TrialState.COMPLETE and "map_spread" in t.user_attrs
    ]
    tracker.log_figure(
        parent,
        front_figure(points, [(t.values[0], t.user_attrs["map_spread"]) for t in front], task.settings.search.metric),
        "figures/front.png",
    )
    rows = task.splits.folds[0].val
    labels = task.index.labels[rows]
    chosen = np.array([rows[labels == k][0] for k in range(len(task.classes)) if (labels == k).any()][:_IMAGES])
    images = task.inputs(chosen, np.zeros_like(chosen))
    both = front if len(front) == 1 else [front[0], front[-1]]
    ends = [_end(task, trial, images, chosen, cancelled) for trial in both]
    names = [task.classes[task.index.labels[row]] for row in chosen]
    tracker.log_figure(parent, maps_figure(images.float().cpu(), names, ends), "figures/front_maps.png")
    study.set_user_attr("front_trials", len(trials))


def print_front(console: Console, study: optuna.Study, metric: str) -> None:
    """The front as a table."""
    front = pareto_front(finished_trials(study))
    table = Table(
        title="Front: no trial is better in both (map spread: 0 one position, 1 uniform or dead)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("trial", metric, "map spread", "parameters"):
        table.add_column(name, justify="left" if name == "parameters" else "right", no_wrap=True)
    for trial in front:
        table.add_row(
            str(trial.user_attrs["slot"]), f"{trial.values[0]:.4f}", f"{trial.user_attrs['map_spread']:.3f}",
            describe_params(TrialParams(**trial.params)),
        )  # fmt: skip
    console.print(table)
    console.print("The winner is the end with the best score. No trial was stopped early.", highlight=False)


def _table(front: Sequence[FrozenTrial], metric: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"trial": t.user_attrs["slot"], metric: t.values[0], "map_spread": t.user_attrs["map_spread"], **t.params}
            for t in front
        ]
    )


def _end(task: Task, trial: FrozenTrial, images: Tensor, rows: np.ndarray, cancelled: Callable[[], bool]) -> End:
    """The maps of these images by a trial's network."""
    params, slot = TrialParams(**trial.params), int(trial.user_attrs["slot"])
    epochs = int(trial.user_attrs["best_epoch"]) + 1
    seed = slot_seed(task.settings.seed, slot)
    net = train_final(task, params, seed, task.splits.folds[0].train, epochs, cancelled=cancelled)
    fostering = Fostering(net, target_block(net, task.settings.trainer.fostering.block), 0.0)
    labels = torch.tensor(task.index.labels[rows], device=images.device)
    with torch.no_grad():
        _, maps = fostering.observe(net.prefix(images, 0), labels, 0)
    title = f"trial {slot}: {describe_params(params)}, score {trial.values[0]:.3f}, spread "
    return End(title + f"{trial.user_attrs['map_spread']:.3f}", maps.float().cpu())
