"""What `search.pruner=maps` stopped: the trial's maps beside those of the trials that went on, and one sentence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from explain.fonts import use_fonts
from explain.overlay import as_pixels, map_overlay
from lightning_modules.errors import printable
from search.outcome.stopped_trials import STOPPED, StoppedTrial, stopped_picture
from search.study.maps_promotion import MapsPromotionRule
from search.study.pruning import build_promotion
from search.study.record import TrialRecord
from search.study.run import StudyRun
from search.study.slots import standings_of
from search.trial.map_statistics import KeptMaps, maps_file, read_maps

__all__ = ["log_stopped", "stopped_figure"]

_FIGURE = "figures/stopped_by_maps.png"  # of the trial's own run
_BESIDE, _IMAGES, _SIDE = 2, 3, 1.5  # trials that went on, images of each, inches of a picture


def log_stopped(run: StudyRun) -> None:
    """Log the pictures to the trials' runs and the study's, and what they show as `STOPPED`; nothing by other rules."""
    if run.settings.search.pruner != "maps":
        return
    folds, trainer = run.task.splits.folds, run.settings.trainer
    rule = build_promotion(run.settings.search, trainer.epochs * len(folds), batches=run.task.batches)
    if not isinstance(rule, MapsPromotionRule):
        return
    trials = run.record.finished()
    standings = standings_of(trials)
    found = []
    for trial in (t for t in trials if t.outcome == "pruned" and t.maps):
        own = next(s for s in standings if s.slot == trial.slot)
        ahead = [s for s in rule.ahead(own, standings) if s.epoch > own.epoch][:_BESIDE]
        weak = rule.weakest(own, standings)
        stopped = StoppedTrial(
            slot=own.slot,
            epoch=own.epoch,
            words=weak.words if weak else "",
            value=weak.value if weak else None,
            others=weak.others if weak else None,
            beside=tuple(s.slot for s in ahead),
        )
        found.append(replace(stopped, picture=_log_picture(run, trial, stopped, weak.block if weak else "")))
    run.tracker.log_text(run.parent, json.dumps([asdict(one) for one in found], indent=1), STOPPED)


def _log_picture(run: StudyRun, trial: TrialRecord, stopped: StoppedTrial, block: str) -> bool:
    """Whether there is a picture now: drawn from the files of the workers, or by an earlier call."""
    shown = []
    for slot in (stopped.slot, *stopped.beside):
        file = run.files.checkpoint(slot)
        if file is not None and (kept := read_maps(maps_file(file, stopped.epoch))) is not None:
            shown.append((slot, kept))
    if not shown or shown[0][0] != stopped.slot:
        return run.tracker.artifact(run.parent, stopped_picture(stopped.slot)).is_file()
    first = shown[0][1]
    shown = [(slot, kept) for slot, kept in shown if kept.blocks == first.blocks]
    task = run.task.of(trial.network)
    images = task.inputs(first.rows[:_IMAGES], np.zeros(len(first.rows[:_IMAGES]), np.int64)).float().cpu()
    figure = stopped_figure(images, shown, block or first.blocks[0])
    run.tracker.log_figure(run.parent, figure, stopped_picture(stopped.slot))
    run.tracker.log_figure(trial.run_id, figure, _FIGURE)
    return True


def stopped_figure(images: Tensor, trials: Sequence[tuple[int, KeptMaps]], block: str) -> Figure:
    """A row the images, then a row a trial: where its block looks in each image, and in its mirror image.

    Args:
        images: (n, 3, H, W) in [0, 1], on the CPU.
        trials: slot and maps of the images, the stopped one first; all of the same blocks.
        block: one of these.
    """
    use_fonts()
    place = trials[0][1].blocks.index(block)
    scale = max(1, 128 // max(images.shape[2:]))
    rows: list[tuple[str, list[NDArray[np.uint8]]]] = [("", [p for i in images for p in [as_pixels(i, scale)] * 2])]
    for number, (slot, kept) in enumerate(trials):
        drawn = []
        for image, plain, mirrored in zip(images, kept.maps[place], kept.mirrored[place], strict=False):
            drawn += [map_overlay(image, torch.from_numpy(one), scale) for one in (plain, mirrored)]
        rows.append((f"trial {slot}: {'went on' if number else 'stopped'}", drawn))
    columns = 2 * len(images)
    figure = Figure(figsize=(_SIDE * columns, (_SIDE + 0.3) * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (title, pictures) in enumerate(rows):
        for column in range(columns):
            axes[row, column].imshow(pictures[column])
            axes[row, column].set_axis_off()
        heads = ("the picture", "") if not row else (title, "of the mirror image, mirrored back")
        for column, text in enumerate(heads):
            axes[row, column].set_title(text, fontsize=8, loc="left", parse_math=False)
    figure.suptitle(f"Maps of the true class at {printable(block)}", fontsize=10)
    return figure
