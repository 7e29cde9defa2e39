"""All months that are due, oldest first."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import partial

from rich.console import Console

from lightning_modules.errors import InputError
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.listing import is_month
from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.images.value_range import FULL_RANGE, ValueRange
from lightning_modules.networks import backbones
from search.retrain.bootstrap import bootstrap, first_images, first_months
from search.retrain.champion import load_champion, settle
from search.retrain.ledger import Ledger, MonthRow
from search.retrain.month.context import Session
from search.retrain.month.image_roles import regression_gap
from search.retrain.month_run import run_month
from search.retrain.months import Due, check_month_name, due_months
from search.settings.rules import refuse_without_effect
from search.settings.schema import Settings
from search.study.ownership import owned
from search.tracking.models import resolve_model
from search.tracking.store import check_unopened
from search.tracking.tracker import Tracker
from search.trial.keys import settings_digest
from search.trial.preparation import costs_of, load, prepare_process, resolved, space_of
from search.trial.resolution import as_model, largest_size
from search.trial.task import choose_device

__all__ = ["owned_model", "run_months"]


def owned_model(settings: Settings) -> AbstractContextManager[None]:
    """Keep every other retraining of this model away (`ownership.owned`)."""
    name = settings.tracking.model_name
    folder = settings.tracking.root / "retraining"
    return owned(folder, name, what=f"retraining of model {name!r}", advice=" and start again")


def run_months(
    settings: Settings, console: Console, *, month: str | None = None, command: str = "python -m search.retrain"
) -> list[MonthRow]:
    """Do every month that is due, or the one asked for; the first call searches the first champion.

    Returns:
        Rows of the months done now, in that order; empty where nothing was due.

    Raises:
        InputError: bad input, found before anything is written.
        InterruptedSearchError: the user stopped it; the same command goes on.
        StudyStalledError: trials fail for a reason of their own.
    """
    _check(settings, month)
    prepare_process(settings)
    check_unopened(settings.tracking.root)
    model, settings = settings.model, _of_the_champion(settings)
    num_blocks = _blocks(settings)
    if settings.retrain.depth.isdigit() and int(settings.retrain.depth) > num_blocks:
        names = " or ".join(settings.model.names)
        raise InputError(
            f"retrain.depth must be auto, none, head, search or in 0..{num_blocks} for {names}, "
            f"got {settings.retrain.depth}"
        )

    def accept(index: ImageIndex) -> list[Rows] | None:
        if not index.has_months:
            raise InputError(
                "retraining needs months: data/<YYYY-MM>/<class>/* (data=folder), or a column month (data=manifest)"
            )
        if any(record.split is not None for record in index.records):
            raise InputError("retraining splits months itself: leave the manifest's column split out")
        if month is not None:
            check_month_name(month, index)
        first_months(index.months, settings)
        costs_of(settings, index.classes, partial(console.print, markup=False, soft_wrap=True))
        if known is not None:
            return None
        _, rows, _, splits = first_images(index, settings)
        return [rows[fold.train] for fold in splits.folds]

    settings, known, why = _as_the_champion(settings)
    images = load(settings, console, accept=accept, value_range=known)
    settings = resolved(settings, images)
    with owned_model(settings), closing(Ledger(settings.tracking.root, settings.tracking.model_name)) as ledger:
        tracker = Tracker.of(settings.tracking)
        device = choose_device(settings.trainer.accelerator)
        given = replace(settings, model=model)
        return _run(Session(settings, console, ledger, tracker, device, command, given), images, month, size=why)


def _as_the_champion(settings: Settings) -> tuple[Settings, ValueRange | None, str]:
    """What all its months have of the champion, whatever they hold themselves.

    Returns:
        Settings with its size and fit where these are open; the values that become black and white, None before the
        first champion; a line on the size, empty where it was given.
    """
    root, name = settings.tracking.root, settings.tracking.model_name
    with closing(Ledger(root, name)) as ledger:
        decided = ledger.promotions()
    if not decided:
        return settings, None, ""
    version = decided[-1].to_version
    try:
        card = resolve_model(f"models:/{name}/{version}", root).card
    except InputError:
        return settings, FULL_RANGE, ""  # it is gone or damaged, which is said where a month is due
    why = f"Size: {card.size[0]} x {card.size[1]}, data.fit={card.fit}; those of the champion, version {version}."
    return as_model(settings, card.size, card.fit), card.value_range, why if settings.data.size == "auto" else ""


def _of_the_champion(settings: Settings) -> Settings:
    """The same with the champion's network alone, where several are named: a month trains the champion on.

    Without a champion they stay as they are, and where its network is none of them, which is said where a month is due.
    """
    root, model = settings.tracking.root, settings.tracking.model_name
    if not settings.model.several:
        return settings
    with closing(Ledger(root, model)) as ledger:
        decided = ledger.promotions()
    if not decided:
        return settings
    try:
        found = resolve_model(f"models:/{model}/{decided[-1].to_version}", root).card.architecture
    except InputError:
        return settings  # it is gone or damaged, which is said where a month is due
    names = [name for name in settings.model.names if settings.model.architecture_of(name) == found]
    return replace(settings, model=replace(settings.model, name=names[0])) if names else settings


def _run(session: Session, images: ImageSet, asked: str | None, *, size: str) -> list[MonthRow]:
    outcomes: list[MonthRow] = []
    ledger, settings = session.ledger, session.settings
    for line in _unused(images.index, settings):
        session.say(line)
    last = settle(ledger, session.tracker, session.model_name)
    if last is None:
        outcomes.append(bootstrap(session, images))
        session = replace(session, settings=_of_the_champion(settings))
    if session.given.model.several and not session.settings.model.several:
        names = ", ".join(session.given.model.names)
        session.say(f"Network: {session.settings.model.names[0]}, the champion's, of {names}.")
    while True:
        last = settle(ledger, session.tracker, session.model_name)
        if last is None:
            raise RuntimeError("the bootstrap left no champion")
        due, notes = due_months(images.index, ledger.latest(), session.given, champion=last.to_version, asked=asked)
        if not due:
            break
        if size and not outcomes:
            session.say(size)
        outcomes.append(_month(session, images, due[0], last.to_version))
    if not outcomes:
        session.say(f"Nothing to do: {_summary(notes)}. Champion: version {last.to_version}.")
    return outcomes


def _month(session: Session, images: ImageSet, due: Due, version: str) -> MonthRow:
    ledger, retrain = session.ledger, session.settings.retrain
    champion = load_champion(session.settings, ledger, session.tracker, version)
    gap = regression_gap(ledger, images.index, due.month, champion)
    if gap and retrain.regression == "complete" and retrain.depth != "none":
        raise InputError(
            f"{gap}; put them back, only look at the champion (retrain.depth=none), or go on without them "
            "(retrain.regression=shrink)"
        )
    row, stale, why = due.row, due.stale, due.why
    if row is not None and (lost := _lost_challenger(session, row)):
        row, stale, why = None, row, f"its challenger is gone: {lost}"
    if row is not None and row.run_id is not None and not session.tracker.resumable(row.run_id):
        row, stale, why = None, row, "begun anew: its run was deleted in MLflow"
    if stale is not None:
        if (run_id := stale.run_id) is not None:
            session.tracker.kill_open_runs(run_id)
            session.tracker.kill(run_id)
        session.clear(stale)
        ledger.abandon(stale, why)
    if row is None:
        digest = settings_digest(session.given)
        row = ledger.begin(due.month, due.digest, digest, images=due.images, why=why, champion=version)
        session.clear(row)  # a ledger that is gone gave its number before
        session.say(f"{due.month}: {due.images} images, {why}.")
    else:
        done = ", ".join(ledger.steps(row)) or "nothing"
        session.say(f"{due.month}: {due.images} images, continued after an interruption (done: {done}).")
    return run_month(session, row, images, champion)


def _lost_challenger(session: Session, row: MonthRow) -> str:
    """Why the challenger of an interrupted month cannot be loaded; empty where it can, or there is none yet."""
    result, _ = session.ledger.steps(row).get("search", ({}, 0.0))
    if winner := result.get("winner"):
        try:
            session.network(winner["version"])
        except InputError as error:
            return str(error)
    return ""


def _unused(index: ImageIndex, settings: Settings) -> list[str]:
    """What is there and not used, of which no month would tell."""
    aside, path = index.set_aside, settings.data.path
    lines = [f"{len(aside)} images set aside, the first: {aside[0].path}: {aside[0].reason}."] if aside else []
    if settings.data.source == "folder" and path is not None:
        found = sorted(folder.name for folder in path.iterdir() if is_month(folder.name) and folder.is_dir())
        lines += [f"{month}: no image that can be used; not done." for month in found if month not in index.months]
    return [*lines, *index.notes]


def _summary(notes: list[str]) -> str:
    return notes[0] if len(notes) == 1 else f"all {len(notes)} months are in the ledger, the last: {notes[-1]}"


def _check(settings: Settings, month: str | None) -> None:
    """Refuse what would have no effect, and a month that is none, before anything is read."""
    if month is not None:
        check_month_name(month)
    said = "retrain.test_fraction and retrain.regression_fraction say what is held out"
    refuse_without_effect(settings, ("data.test", "data.test_months", "data.test_fraction"), f"retraining: {said}")
    refuse_without_effect(settings, ("search.study", "search.fresh", "search.storage", "tracking.uri"), "retraining")


def _blocks(settings: Settings) -> int:
    """L of the network that the settings name, of several the smallest; refuses what it cannot be or start from."""
    space_of(settings)
    model = settings.model
    size = largest_size(settings)
    build = partial(backbones.build, classes=2, size=size, weights="none", attention=model.attention)
    return min(build(model.architecture_of(name)).deepest for name in model.names)
