"""Step 1: what is wrong or unusual with a month's images, before any network sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from lightning_modules.errors import printable
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.images.value_range import described_values, shows_nothing, value_problem
from search.retrain.ledger import Role
from search.retrain.month.context import MonthContext
from search.retrain.month.image_roles import month_roles
from search.retrain.month.record import DataCheck
from search.retrain.months import missing_images, month_rows

__all__ = ["check_data"]

_UNLIKELY = 0.001  # of a class mix; monthly, it is named about once in eighty years where nothing changes
_CHUNK = 256
_OTHER_VALUES = 0.1  # share of a month's images that may have values which the champion does not know


def check_data(context: MonthContext) -> dict[str, Any]:
    """Look at the month's images and, unless they are refused, decide for ever which are held out."""
    settings, month, ledger = context.settings, context.row.month, context.session.ledger
    found = _check(context)
    if found.refusal is None:
        known, fraction = context.images.index, settings.retrain.test_fraction
        roles = month_roles(known, month, ledger.roles(), fraction=fraction, seed=settings.seed)
        ledger.give_roles(context.row, roles)
    return found.to_json()


def _check(context: MonthContext) -> DataCheck:
    images, index, retrain = context.all_images, context.all_images.index, context.settings.retrain
    rows = month_rows(index, context.row.month)
    older = np.array([i for i, r in enumerate(index.records) if r.month in context.usable], dtype=np.int64)
    known = context.champion.model.card.value_range
    # A month nearly black is no month, also for a model of a program that did not keep how dark its images were.
    known = known._replace(dark=max(known.dark, known.white // 16))
    counts = _counts(index, rows)
    new = tuple(name for name in counts if name not in context.champion.classes)
    flat = _flat(images, rows)
    refusals, notes = [], []
    if len(flat) >= retrain.constant_share * len(rows):
        example = index.records[int(flat[0])].path.name
        refusals.append(
            f"{len(flat)} of {len(rows)} images show nothing (one grey value, as {example}): a broken camera or empty "
            f"files; less than retrain.constant_share={retrain.constant_share:g} of them is accepted"
        )
    elif len(flat):
        notes.append(f"{len(flat)} of {len(rows)} images show nothing (one grey value).")
    month = [index.records[row] for row in rows.tolist()]
    if other := [(record, why) for record in month if (why := value_problem(record.values, known))]:
        (first, why), share = other[0], f"{len(other)} of {len(rows)} images have other values"
        if len(other) > _OTHER_VALUES * len(rows):
            refusals.append(f"{share}, such as {printable(first.path.name)}: {why} under another tracking.model_name")
        else:
            notes.append(f"{share}, such as {printable(first.path.name)} ({described_values(first.values)}).")
    if new:
        named = ", ".join(f"{name} ({counts[name]} images)" for name in new)
        if retrain.new_class == "refuse":
            refusals.append(f"classes that the champion does not know: {named}; retrain.new_class=extend accepts them")
        else:
            notes.append(f"New classes, for which the head gets outputs: {named}.")
    before = _counts(index, older)
    if gone := [name for name in before if name not in counts]:
        notes.append(f"Classes without an image this month: {', '.join(gone)}.")
    if mix := _mix(before, counts):
        notes.append(mix)
    if context.champion.model.trained_on is None:
        notes.append(
            f"Version {context.champion.version} does not name the images that it was trained on (it is of an earlier "
            "program): those that could be trained on when it was made are taken for them."
        )
    if not refusals:
        notes += _missing(context)
    elif context.row.month in context.usable:
        notes.append("Images of this month that the ledger holds from before stay in use; its new ones are not used.")
    return DataCheck("; ".join(refusals) or None, tuple(notes), new, len(flat), counts)


def _missing(context: MonthContext) -> Iterator[str]:
    """A sentence on images that earlier months had and this one has not."""
    roles = context.session.ledger.roles()
    there = {record.digest for record in context.all_images.index.records if record.label in context.classes}
    uses: dict[Role, str] = {"training": "to train on", "held_out": "held out"}
    if gone := [words for role, what in uses.items() if (words := missing_images(roles, role, there, what))]:
        yield f"Not in the data any more, though the ledger holds them: {', '.join(gone)}."
    if gap := context.regression_gap:
        yield gap


def _counts(index: ImageIndex, rows: Rows) -> dict[str, int]:
    counts = np.bincount(index.labels[rows], minlength=len(index.classes))
    return {name: int(count) for name, count in zip(index.classes, counts, strict=True) if count}


def _flat(images: ImageSet, rows: Rows) -> NDArray[np.int64]:
    """Rows of images whose grey values do not vary."""
    shown, place = images.pixel_rows(rows)
    flat = np.ones(len(rows), np.bool_)
    for start in range(0, len(shown), _CHUNK):
        part = slice(start, start + _CHUNK)
        flat[place[part][~shows_nothing(images.pixels[shown[part]])]] = False
    return rows[flat]


def _mix(before: dict[str, int], now: dict[str, int]) -> str:
    """One sentence where the mix of classes is far off that of older months (chi-square), else nothing."""
    names = sorted({*before, *now})
    table = np.array([[one.get(name, 0) for name in names] for one in (before, now)])
    if len(names) < 2 or not table.sum(axis=1).all():
        return ""
    result = chi2_contingency(table, correction=False)
    if result.pvalue >= _UNLIKELY:
        return ""
    residuals = (table[1] - result.expected_freq[1]) / np.sqrt(result.expected_freq[1])
    odd = sorted(range(len(names)), key=lambda i: -abs(residuals[i]))[:3]
    shares = table / table.sum(axis=1, keepdims=True)
    named = ", ".join(f"{names[i]} {shares[0, i]:.0%} -> {shares[1, i]:.0%}" for i in odd)
    return f"The mix of classes is far from that of older months (chi-square, p = {result.pvalue:.1g}): {named}."
