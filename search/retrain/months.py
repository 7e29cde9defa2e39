"""Which months are to be done, and why: new ones, interrupted ones, and those whose data changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from lightning_modules.errors import InputError
from lightning_modules.images.index import ImageIndex, ImageRecord
from lightning_modules.images.listing import is_month
from lightning_modules.images.split_units import Rows
from search.retrain.ledger import MonthRow, Role, Roles
from search.settings.schema import Settings
from search.trial.keys import settings_digest

__all__ = ["Due", "check_month_name", "due_months", "missing_images", "month_digest", "month_rows", "usable_months"]


@dataclass(frozen=True)
class Due:
    """A month to be done: `row` was left by an interrupted call and goes on, `stale` was left by one and cannot."""

    month: str
    digest: str
    images: int
    why: str
    row: MonthRow | None = None
    stale: MonthRow | None = None


def month_digest(records: Iterable[ImageRecord]) -> str:
    """Digest of images, labels and groups, and of masks where tiles are labelled by them, whatever paths and order."""
    lines = sorted(
        json.dumps([r.digest, r.label, r.month, r.group, *([] if r.defect is None else [r.defect])]) for r in records
    )
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def month_rows(index: ImageIndex, month: str) -> Rows:
    """Positions of a month's images."""
    return np.array([row for row, record in enumerate(index.records) if record.month == month], dtype=np.int64)


def check_month_name(month: str, index: ImageIndex | None = None) -> None:
    """Refuse what is no month, or a month without images.

    Raises:
        InputError: one of these.
    """
    if not is_month(month):
        raise InputError(f"month must be YYYY-MM with MM in 01..12, got {month!r}")
    if index is not None and month not in index.months:
        known = f"{index.months[0]} to {index.months[-1]}" if index.months else "none"
        raise InputError(f"month={month} has no images; months in the data: {known}")


def due_months(
    index: ImageIndex, latest: dict[str, MonthRow], settings: Settings, *, champion: str, asked: str | None
) -> tuple[list[Due], list[str]]:
    """What is to be done, oldest month first, and a sentence on every month that was asked for and is not.

    `champion` is its version; `asked` is one month, or None for all.
    """
    wanted = settings_digest(settings)
    due, notes = [], []
    for month in index.months if asked is None else (asked,):
        rows = month_rows(index, month)
        digest, count = month_digest(index.records[row] for row in rows.tolist()), len(rows)
        before = latest.get(month)
        if before is None:
            due.append(Due(month, digest, count, "new"))
        elif before.state == "running":
            same = (before.data_digest, before.settings_digest, before.champion_before) == (digest, wanted, champion)
            if same:
                due.append(Due(month, digest, count, before.why, row=before))
            else:
                why = _difference(before, digest, wanted)
                due.append(Due(month, digest, count, f"begun on {_day(before.started)}; {why}", stale=before))
        elif before.data_digest != digest:
            then = f"{before.images} images then, {count} now"
            due.append(Due(month, digest, count, f"its data changed since {_day(before.finished)} ({then})"))
        elif before.settings_digest != wanted and (asked is not None or before.outcome == "refused"):
            due.append(Due(month, digest, count, f"settings changed since {_day(before.finished)} ({before.outcome})"))
        else:
            notes.append(f"{month} was done on {_day(before.finished)}: {before.outcome}")
    return due, notes


def _difference(before: MonthRow, digest: str, settings: str) -> str:
    if before.data_digest != digest:
        return "its data changed meanwhile"
    return "settings changed meanwhile" if before.settings_digest != settings else "the champion changed meanwhile"


def _day(time: str | None) -> str:
    return (time or "?")[:10]


def usable_months(rows: Iterable[MonthRow]) -> set[str]:
    """Months whose images later months may train on and test with, by all rows of the ledger in the order begun.

    A month that is refused or interrupted when it is done again stays as usable as it was: it has roles for the images
    that the ledger holds, and none for the new ones.
    """
    done = {row.month: row.usable for row in rows if row.state == "done" and row.outcome != "refused"}
    return {month for month, usable in done.items() if usable}


def missing_images(roles: Roles, role: Role, there: Collection[str], what: str) -> str:
    """How many images with this role are not among the digests `there`, what they are, and of which months, in words.

    Empty where none is missing.
    """
    months = sorted(month for digest, (kept, month) in roles.items() if kept == role and digest not in there)
    return f"{len(months)} {what} ({' to '.join(dict.fromkeys((months[0], months[-1])))})" if months else ""
