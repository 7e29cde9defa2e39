"""The first champion: an ordinary search on the first months, and the regression set that is fixed by it for ever."""

from __future__ import annotations

import time
from dataclasses import replace
from glob import escape
from typing import Any

import numpy as np

from lightning_modules.errors import InputError
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows
from lightning_modules.images.splits import Splits
from lightning_modules.images.store import ImageSet
from search.pipeline import run_study
from search.retrain.champion import BASELINE, settle
from search.retrain.ledger import MonthRow
from search.retrain.month.baseline import measure_baseline
from search.retrain.month.context import Session
from search.retrain.month.image_roles import bootstrap_roles
from search.retrain.month.images import image_subset, index_subset, shown_images
from search.retrain.months import month_digest, month_rows
from search.settings.schema import Settings
from search.trial.keys import digest, settings_digest
from search.trial.preparation import describe_data, space_of, split, tiling_of
from search.trial.task import build_task

__all__ = ["bootstrap", "first_images", "first_months"]

_STEP = "search"


def first_months(months: tuple[str, ...], settings: Settings) -> tuple[str, ...]:
    """The months that the first champion is searched on, oldest first.

    Raises:
        InputError: `retrain.start_months` is more than there are.
    """
    wanted = settings.retrain.start_months
    if wanted is None:
        wanted = max(1, len(months) - 1)
    if wanted > len(months):
        raise InputError(f"retrain.start_months={wanted}, and the data hold {len(months)} months")
    return months[:wanted]


def first_images(index: ImageIndex, settings: Settings) -> tuple[Settings, Rows, ImageIndex, Splits]:
    """Images of the first months: settings of their search, rows, an index of them alone and their splits.

    Raises:
        InputError: images that cannot be split, or none of the normal class.
    """
    months = first_months(index.months, settings)
    data = replace(settings.data, test="random", test_months=1, test_fraction=settings.retrain.regression_fraction)
    settings = replace(settings, data=data, search=replace(settings.search, study=None, fresh=False))
    inside = np.array([i for i, r in enumerate(index.records) if r.month in months], dtype=np.int64)
    known = tuple(sorted({index.records[row].label for row in inside.tolist()}))
    subset = index_subset(index, inside, known)
    if (tiling := tiling_of(settings)) is not None:
        tiling.normal_position(known)
    return settings, inside, subset, split(settings, subset)


def bootstrap(session: Session, images: ImageSet) -> MonthRow:
    """Search the first champion, fix the regression set, and let the alias `champion` name it.

    Raises:
        InputError: images that cannot be split.
        InterruptedSearchError, StudyStalledError: see `run_study`.
    """
    settings, ledger = session.settings, session.ledger
    months = first_months(images.index.months, settings)
    rows = _begin(session, images, months)
    last = rows[-1]
    session.say(f"No champion yet: searching the first one on {len(months)} months, {months[0]} to {months[-1]}.")
    settings, inside, index, splits = first_images(images.index, settings)
    subset = image_subset(images, inside, index.classes, session.folder(last), session.say)
    describe_data(session.console, subset, splits)
    root = settings.tracking.root
    task = build_task(settings, subset, splits, cache=root / "cache", on_note=session.say)
    made_of = task.identity | {"model_name": session.model_name}
    name = f"{session.model_name}-first-{digest(made_of, 4)}"
    started = time.perf_counter()
    ledger.begin_step(last, _STEP)
    found = run_study(task, space_of(settings), name, made_of, session.console)
    winner = found.winner
    net = session.network(winner.version)
    baseline = measure_baseline(
        net,
        shown_images(net, subset, splits.test),
        subset.index.labels[splits.test],
        subset.index.classes,
        groups=[subset.index.records[row].group or f"row {row}" for row in splits.test.tolist()],
        seed=settings.seed,
    )
    folder = session.folder(last)
    folder.mkdir(parents=True, exist_ok=True)
    baseline.save(folder / BASELINE)
    session.tracker.log_file(found.parent, folder / BASELINE)
    ledger.finish_step(last, _STEP, {"version": winner.version}, time.perf_counter() - started)
    test, intervals = winner.test or {}, winner.intervals or {}
    accuracy, (low, high) = test["accuracy"], intervals["accuracy"]
    reason = (
        f"the first champion, searched on {len(months)} months: accuracy {accuracy:.1%} (95 % interval {low:.1%} to "
        f"{high:.1%}) on {winner.images[1]} images of the regression set"
    )
    numbers: dict[str, Any] = {
        "cut": int(winner.params["freeze_depth"]), "month": months[-1], "trained": winner.images[0],
        "regression_after": accuracy, "regression_images": winner.images[1], "seconds": session.seconds(last),
    }  # fmt: skip
    session.tracker.log(
        found.parent,
        {"retrain_seconds": numbers["seconds"]},
        tags={"month": months[-1], "months": ", ".join(months), "outcome": "bootstrap", "decision": reason},
    )
    ledger.give_roles(last, bootstrap_roles(subset.index, splits))
    for row in rows:
        ledger.set_run(row, found.parent)
    ledger.finish(
        rows, "bootstrap", reason, numbers, champion=winner.version, challenger=winner.version,
        promotion={"kind": "bootstrap", "to_version": winner.version, "reason": reason, "numbers": numbers,
                   "run_id": found.parent},
    )  # fmt: skip
    settle(ledger, session.tracker, session.model_name)
    session.clear(last)
    session.say(f"Champion: version {winner.version}, {reason}.")
    return ledger.latest()[last.month]


def _begin(session: Session, images: ImageSet, months: tuple[str, ...]) -> list[MonthRow]:
    """A running row for each month, those of an interrupted call where they still fit."""
    ledger, wanted = session.ledger, settings_digest(session.settings)
    digests = {
        month: month_digest(images.index.records[row] for row in month_rows(images.index, month).tolist())
        for month in images.index.months
    }
    latest = ledger.latest()
    fits = {m: (digests[m], wanted) for m in months}
    if {m: (row.data_digest, row.settings_digest) for m, row in latest.items()} != fits:
        for journal in (session.settings.tracking.root / "studies").glob(
            f"{escape(session.model_name)}-first-*.journal"
        ):
            session.tracker.kill_open_study(journal.stem)
        for row in latest.values():
            ledger.abandon(row, "the first champion is searched anew: data or settings changed")
            session.clear(row)
        for month in months:
            count = len(month_rows(images.index, month))
            session.clear(ledger.begin(month, digests[month], wanted, images=count, why="new", champion=None))
    return [ledger.latest()[month] for month in months]
