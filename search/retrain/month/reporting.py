"""What the MLflow run of a month holds of it: numbers, sentences, record, page, and a new champion's baseline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lightning_modules.errors import printable
from search.retrain.champion import BASELINE
from search.retrain.month.answers import plain_images, probabilities
from search.retrain.month.record import PictureFacts
from search.retrain.month.recording import month_record
from search.retrain.page.depth_figure import depth_figure
from search.retrain.page.page import write_page
from search.retrain.page.pictures import PagePicture, explained, informative, picture_facts, suspect
from search.tracking.models import resolve_model

if TYPE_CHECKING:
    from lightning_modules.networks.blocknet import BlockNet
    from search.retrain.month.run import MonthRun

__all__ = ["PAGE", "RECORD", "report_month"]

PAGE, RECORD = "month.html", "month.json"
"""Artifacts of the month's run."""


def report_month(run: MonthRun) -> dict[str, Any]:
    """Log everything; doing it twice changes nothing."""
    session = run.session
    steps = {name: result for name, (result, _) in session.ledger.steps(run.row).items()}
    challenger = _challenger(run, steps)
    shown = _Shown((), (), {})
    if "look" in steps:
        shown = _pictures(run, challenger)
    record = month_record(run, shown.pictures, shown.suspects)
    metrics = record.metrics() | {"retrain_seconds": session.seconds(run.row)}
    tags = record.tags()
    if "compare" in steps:
        numbers = steps["compare"]["numbers"]
        metrics |= {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        metrics |= {f"retrain_{name}": steps["search"].get(name, 0.0) for name in ("epoch_equivalents", "image_passes")}
        tags |= {"depth_of_retraining": steps["depth"]["action"]}
    session.log(run.run_id, metrics, tags)
    folder = session.folder(run.row)
    folder.mkdir(parents=True, exist_ok=True)
    session.tracker.log_text(run.run_id, json.dumps(record.to_json(), indent=1, ensure_ascii=False), RECORD)
    write_page(record.to_json(), shown.maps, folder / PAGE)
    session.tracker.log_file(run.run_id, folder / PAGE)
    if record.depth is not None:
        session.tracker.log_figure(run.run_id, depth_figure(record.depth), "figures/depth.png")
    if record.outcome == "promoted" and challenger is not None:
        run.baseline(challenger, run.plan.tests).save(folder / BASELINE)
        session.tracker.log_file(run.run_id, folder / BASELINE)
    return {}


def _challenger(run: MonthRun, steps: dict[str, Any]) -> BlockNet | None:
    if (winner := steps.get("search", {}).get("winner")) is None:
        return None
    name = f"models:/{run.session.model_name}/{winner['version']}"
    return resolve_model(name, run.session.settings.tracking.root).net.to(run.session.device)


@dataclass(frozen=True)
class _Shown:
    pictures: tuple[PictureFacts, ...]
    suspects: tuple[PictureFacts, ...]
    maps: dict[str, PagePicture]


def _shown_path(run: MonthRun, path: Path) -> str:
    """Relative to the folder, or to that of the manifest, where the image is below it."""
    given = run.session.settings.data.path
    root = given if given is None or given.is_dir() else given.parent
    return printable(path.relative_to(root) if root is not None and path.is_relative_to(root) else path)


def _pictures(run: MonthRun, challenger: BlockNet | None) -> _Shown:
    """The most informative images, those of the month whose label is suspect, and what both networks look at.

    Informative are images that neither network was trained on: of others it says little that the challenger has them
    right.
    """
    index, plan = run.images.index, run.plan
    rows = np.union1d(plan.month, plan.newest)
    unseen = plan.newest if challenger is not None else np.union1d(plan.newest, plan.unseen)
    fair = np.flatnonzero(np.isin(rows, unseen))
    own = np.flatnonzero(np.isin(rows, plan.month))
    labels, paths = index.labels[rows], [_shown_path(run, index.records[row].path) for row in rows.tolist()]
    champion = probabilities(run.champion_net, run.images, rows)
    other = None if challenger is None else probabilities(challenger, run.images, rows)
    chosen = [
        (int(fair[place]), why)
        for place, why in informative(champion[fair], None if other is None else other[fair], labels[fair])
    ]
    doubted = [] if other is None else suspect(champion[own], other[own], labels[own])
    doubted = [(int(own[place]), why) for place, why in doubted]
    pictures, suspects = (
        picture_facts(one, champion, other, labels, paths=paths, classes=index.classes) for one in (chosen, doubted)
    )
    positions = np.array(sorted({row for row, _ in (*chosen, *doubted)}), dtype=np.int64)
    if not len(positions):
        return _Shown(pictures, suspects, {})
    images = torch.cat(list(plain_images(run.images, rows[positions], run.session.device)))
    maps = explained(run.champion_net, challenger, images)
    return _Shown(pictures, suspects, {paths[i]: one for i, one in zip(positions.tolist(), maps, strict=True)})
