"""Step 6: what the month's MLflow run holds of it: record, numbers, sentences, page, and a new champion's baseline.

It stands beside the folder `month`, since it is the one step that needs the page, and the page reads the record there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from explain.overlay import as_pixels
from lightning_modules.errors import InputError, printable
from lightning_modules.images.reading import Fit, read_image
from lightning_modules.networks.blocknet import BlockNet
from search.pages.original_picture import Original
from search.retrain.champion import BASELINE
from search.retrain.month.context import MonthContext
from search.retrain.month.decisions import MonthDecisions
from search.retrain.month.images import probabilities, shown_images
from search.retrain.month.record import (
    PLACES,
    Comparison,
    Decision,
    DepthDecision,
    Drift,
    ModelFacts,
    MonthRecord,
    PictureFacts,
    SearchFacts,
)
from search.retrain.page.depth_figure import depth_figure
from search.retrain.page.page import write_page
from search.retrain.page.pictures import (
    SUSPECTS_RULE,
    PagePicture,
    explained,
    informative,
    picture_facts,
    suspect,
)
from search.trial.result import TrialParams

__all__ = ["PAGE", "RECORD", "report_month"]

PAGE, RECORD = "month.html", "month.json"
"""Artifacts of the month's run."""


@dataclass(frozen=True)
class _Shown:
    pictures: tuple[PictureFacts, ...] = ()
    suspects: tuple[PictureFacts, ...] = ()
    maps: dict[str, PagePicture] | None = None


def report_month(context: MonthContext) -> dict[str, Any]:
    """Log everything; doing it twice changes nothing."""
    session, results = context.session, context.results
    challenger = context.challenger_net()
    shown = _pictures(context, challenger) if "look" in results else _Shown()
    record = _record(context, shown)
    metrics = record.metrics() | {"retrain_seconds": session.seconds(context.row)}
    tags = record.tags()
    if "compare" in results:
        numbers = results["compare"]["numbers"]
        metrics |= {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        metrics |= {f"retrain_{n}": results["search"].get(n, 0.0) for n in ("epoch_equivalents", "image_passes")}
        tags |= {"depth_of_retraining": results["depth"]["action"]}
    session.tracker.log(context.run_id, metrics, tags=tags)
    context.folder.mkdir(parents=True, exist_ok=True)
    plain = record.to_json()
    session.tracker.log_text(context.run_id, json.dumps(plain, indent=1, ensure_ascii=False), RECORD)
    write_page(plain, shown.maps or {}, context.folder / PAGE)
    session.tracker.log_file(context.run_id, context.folder / PAGE)
    if record.depth is not None:
        session.tracker.log_figure(context.run_id, depth_figure(record.depth), "figures/depth.png")
    if record.outcome == "promoted" and challenger is not None:
        path = context.save_baseline(context.baseline(challenger, context.plan.tests), BASELINE)
        session.tracker.log_file(context.run_id, path)
    return {}


def _pictures(context: MonthContext, challenger: BlockNet | None) -> _Shown:
    """The most informative images, those of the month whose label is suspect, and what both networks look at.

    Informative are images that neither network was trained on: of others it says little that the challenger has them
    right.
    """
    index, plan = context.images.index, context.plan
    rows = np.union1d(plan.month, plan.newest)
    unseen = plan.newest if challenger is not None else np.union1d(plan.newest, plan.unseen)
    fair = np.flatnonzero(np.isin(rows, unseen))
    own = np.flatnonzero(np.isin(rows, plan.month))
    labels = index.labels[rows]
    paths = [_shown_path(context.settings.data.path, index.records[row].path) for row in rows.tolist()]
    champion = probabilities(context.champion_net, context.images, rows)
    other = None if challenger is None else probabilities(challenger, context.images, rows)
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
        return _Shown(pictures, suspects)
    # Of an image in tiles, the champion's: both networks are explained on one picture.
    images = torch.cat(list(shown_images(context.champion_net, context.images, rows[positions])))
    originals = [_original(context, int(row), image) for row, image in zip(rows[positions], images.cpu(), strict=True)]
    maps = explained(context.champion_net, challenger, images, originals)
    return _Shown(pictures, suspects, {paths[i]: one for i, one in zip(positions.tolist(), maps, strict=True)})


def _original(context: MonthContext, row: int, image: Tensor) -> Original:
    """An image as it was taken; of one in tiles, and of one whose file is gone meanwhile, what the network sees."""
    index, data = context.images.index, context.settings.data
    if context.images.tiling is None:
        try:
            pixels = read_image(index.records[row].path, max_pixels=data.max_pixels, known=index.value_range)
            return Original(pixels, data.pixels, cast("Fit", data.fit))
        except InputError:
            pass
    return Original(as_pixels(image), data.pixels, "stretch")


def _shown_path(given: Path | None, path: Path) -> str:
    """Relative to the folder given, or to that of the manifest, where the image is below it."""
    root = given if given is None or given.is_dir() else given.parent
    return printable(path.relative_to(root) if root is not None and path.is_relative_to(root) else path)


def _record(context: MonthContext, shown: _Shown) -> MonthRecord:
    """All that the page of the month shows; of a refused month, what is known of it."""
    results, settings, champion, check = context.results, context.settings, context.champion, context.check
    compared, look, depth = (results.get(name, {}) for name in ("compare", "look", "depth"))
    images = {"month": sum(check.counts.values())}
    cautions = list(compared.get("cautions", ()))
    if check.refusal is None:
        plan, records = context.plan, context.images.index.records
        of_month = int(sum(records[r].month == context.row.month for r in plan.pool))
        images |= {
            "training and validation": of_month,
            "of older months": len(plan.pool) - of_month,
            "held out": len(plan.own),
            "compared on": len(plan.newest),
            "regression set": len(plan.regression),
            "held out in other months": len(plan.others),
        }
        decision = Decision.from_json(compared["decision"])
        if pooled := plan.newest_months[1:]:
            held = f"The month alone has {len(plan.own)} held-out images"
            cautions.append(f"{held}; those of {', '.join(pooled)} were pooled.")
    else:
        decision = Decision(False, f"refused: {check.refusal}")
    challenger, search = _searched(context)
    return MonthRecord(
        month=context.row.month,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        command=context.session.command,
        model_name=context.session.model_name,
        run_id=context.run_id,
        classes=context.classes,
        outcome=compared.get("outcome", "refused"),
        images=images,
        champion=ModelFacts(
            champion.version, _words(champion.params), f"{champion.trained} images up to {champion.month}"
        ),
        champion_scores={name: (v[0], v[1], v[2]) for name, v in look.get("scores", {}).items()},
        champion_images=look.get("images", 0),
        decision=decision,
        margin=settings.retrain.margin,
        guard=settings.retrain.guard,
        challenger=challenger,
        data_notes=check.notes,
        left_out=tuple((problem.path, problem.reason) for problem in context.all_images.index.set_aside),
        drift=Drift.from_json(look["drift"]) if look.get("drift") else None,
        decisions=MonthDecisions.from_json(look["decisions"]) if look.get("decisions") else None,
        depth=DepthDecision.from_json(depth["decision"]) if depth.get("decision") else None,
        depth_setting=settings.retrain.depth,
        search=search,
        **{place: Comparison.from_json(compared[place]) if compared.get(place) else None for place in PLACES},
        pictures=shown.pictures,
        suspects=shown.suspects,
        suspects_rule=SUSPECTS_RULE if challenger else "",
        cautions=tuple(cautions),
    )


def _searched(context: MonthContext) -> tuple[ModelFacts | None, SearchFacts | None]:
    searched = context.results.get("search", {})
    if (winner := searched.get("winner")) is None:
        return None, None
    trained_on = f"{winner['images'][0]} images up to {context.row.month}"
    challenger = ModelFacts(winner["version"], _words(TrialParams(**winner["params"])), trained_on)
    best = {name: f"{v:.3g}" if isinstance(v, float) else str(v) for name, v in winner["params"].items()}
    seconds = context.session.seconds(context.row)
    return challenger, SearchFacts(searched["trials"], seconds, searched["epoch_equivalents"], best)


def _words(params: TrialParams) -> str:
    return f"{params.optimizer}, learning rate {params.learning_rate:.3g}, freeze depth {params.freeze_depth}"
