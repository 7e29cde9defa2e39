"""Which images of a month may be trained on, and which test champion and challenger: decided once, for ever.

An image has one role from the first time it is seen (the ledger keeps it by the digest of its pixels). Held-out and
regression images are never trained on, by any later month. Images of one group, and copies of one picture, have one
role.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows, Units
from lightning_modules.images.splits import Fold, Splits
from search.retrain.champion import Champion
from search.retrain.ledger import Ledger, Role, Roles
from search.retrain.months import missing_images, usable_months
from search.settings.schema import Settings

__all__ = ["MonthPlan", "bootstrap_roles", "month_roles", "plan_month", "regression_gap"]

_NEW_SHARE = 0.3  # of a month's images that validate, at least


@dataclass(frozen=True, eq=False)
class MonthPlan:
    """How the images known in a month are used; positions in the month's index, int64, ascending.

    Attributes:
        month: all images of the month.
        pool: images to train and validate on.
        folds: the same, parted, for a search from the champion's weights: validated on what it has not been trained on.
        folds_anew: the same, parted, for a search from the pre-trained network.
        newest: held-out images on which champion and challenger are compared.
        newest_months: the months they are of.
        own: held-out images of this month among `newest`.
        unseen: images of the month that the champion was not trained on.
        regression: the test images of the first champion, the same in every month, for the second comparison.
        others: held-out images of other months that are not among `newest`, for the third.
    """

    month: Rows
    pool: Rows
    folds: tuple[Fold, ...]
    folds_anew: tuple[Fold, ...]
    newest: Rows
    newest_months: tuple[str, ...]
    own: Rows
    unseen: Rows
    regression: Rows
    others: Rows

    @property
    def tests(self) -> Rows:
        """All images that no model is trained on."""
        return np.unique(np.concatenate([self.newest, self.regression, self.others]))


def bootstrap_roles(index: ImageIndex, splits: Splits) -> dict[str, tuple[Role, str]]:
    """Roles by digest of the images of the first champion: its test set is the regression set."""
    testing = set(splits.test.tolist())
    training = set(np.concatenate([np.union1d(fold.train, fold.val) for fold in splits.folds]).tolist())
    roles: dict[str, tuple[Role, str]] = {}
    for row, record in enumerate(index.records):
        role: Role = "regression" if row in testing else "training" if row in training else "out"
        roles[record.digest] = (role, record.month or "")
    return roles


def month_roles(
    index: ImageIndex, month: str, roles: Roles, *, fraction: float, seed: int
) -> dict[str, tuple[Role, str]]:
    """Roles of the month's images that have none yet.

    Whole groups, stratified by class: a share of the new images is held out; of a class that has no training image
    yet, at least one group (or image) stays for training. What is tied to images that have a role gets that role; what
    is tied to both sides is used for nothing.

    Args:
        roles: by digest, of earlier calls.
        fraction: share to hold out, in (0, 1).
    """
    units = Units(index, seed)
    known = [roles.get(record.digest) for record in index.records]
    by_unit = [(unit, role[0]) for unit, role in zip(units.of.tolist(), known, strict=True) if role]
    trained = {unit for unit, role in by_unit if role == "training"}
    tested = {unit for unit, role in by_unit if role in ("held_out", "regression")}
    new = [row for row, role in enumerate(known) if role is None and index.records[row].month == month]
    free = np.array([r for r in new if units.of[r] not in trained and units.of[r] not in tested], dtype=np.int64)
    learnt = {index.records[row].label for row, role in enumerate(known) if role and role[0] == "training"}
    # Of a class without training images, something must stay to train on.
    unlearnt = [r for r in free.tolist() if index.records[r].label not in learnt]
    novel = np.isin(units.of[free], units.of[np.array(unlearnt, dtype=np.int64)])
    held: set[int] = set()
    for part, keep in ((free[~novel], 0), (free[novel], 1)):
        if len(part):
            target = fraction * units.counts(part)
            held |= set(units.take(part, target, f"held out/{month}", keep=keep).tolist())
    found: dict[str, tuple[Role, str]] = {}
    for row in new:
        unit = int(units.of[row])
        if unit in trained and unit in tested:
            role: Role = "out"
        elif unit in tested or row in held:
            role = "held_out"
        else:
            role = "training"
        found[index.records[row].digest] = (role, month)
    return found


def regression_gap(ledger: Ledger, index: ImageIndex, month: str, champion: Champion) -> str:
    """What of the regression set the champion cannot be judged on in a month, in words; empty where that is nothing."""
    months = {*usable_months(ledger.months()), month}
    classes = {*champion.classes, *(record.label for record in index.records if record.month == month)}
    there = {record.digest for record in index.records if record.month in months and record.label in classes}
    roles = ledger.roles()
    whole = sum(role == "regression" for role, _ in roles.values())
    lost = f"of {whole} images of the regression set cannot be used any more"
    return missing_images(roles, "regression", there - champion.trained_on, lost)


def plan_month(
    index: ImageIndex, month: str, roles: Roles, settings: Settings, *, trained_on: Collection[str]
) -> MonthPlan:
    """The images of a month's search and comparison.

    Args:
        index: the images known in the month: its own and those of usable older months.
        roles: by digest, of all images.
        trained_on: digests of the images that the champion was trained on; they test nobody, whatever their role.
    """
    retrain = settings.retrain
    of = np.array([record.month for record in index.records])
    role = np.array([roles[record.digest][0] if record.digest in roles else "out" for record in index.records])
    units = Units(index, settings.seed)
    months = [month, *sorted({str(m) for m in of.tolist()} - {month}, reverse=True)]
    known = np.array([record.digest in trained_on for record in index.records], dtype=np.bool_)
    held_out = (role == "held_out") & ~known
    own, newest_months = np.flatnonzero(held_out & (of == month)), [month]
    newest = own
    for older in months[1 : retrain.pool_months]:
        if len(newest) >= retrain.pool_images:
            break
        more = np.flatnonzero(held_out & (of == older))
        if len(more):
            newest, newest_months = np.union1d(newest, more), [*newest_months, older]
    others = np.setdiff1d(np.flatnonzero(held_out), newest)
    training = np.flatnonzero(role == "training")
    window = months if retrain.window == "all" else months[: int(retrain.window.removeprefix("last-"))]
    inside, older_rows = training[np.isin(of[training], window)], training[~np.isin(of[training], window)]
    replayed = units.cap(older_rows, retrain.replay, "replay") if len(older_rows) and retrain.replay else older_rows[:0]
    pool = np.union1d(inside, replayed)
    honest, all_of_it = ~known[pool], np.ones(len(pool), dtype=np.bool_)
    folds, folds_anew = (
        tuple(_folds(units, pool, of[pool] == month, may, settings))
        for may in (honest if honest.any() else all_of_it, all_of_it)
    )
    return MonthPlan(
        month=np.flatnonzero(of == month),
        pool=pool,
        folds=folds,
        folds_anew=folds_anew,
        newest=newest,
        newest_months=tuple(newest_months),
        own=own,
        unseen=np.flatnonzero((of == month) & ~known),
        regression=np.flatnonzero((role == "regression") & ~known),
        others=others,
    )


def _folds(
    units: Units, pool: Rows, of_month: NDArray[np.bool_], honest: NDArray[np.bool_], settings: Settings
) -> Sequence[Fold]:
    """How the pool is parted to train and to validate.

    Images that the champion was trained on do not validate a search from its weights: it has most of them right before
    anything is learnt, and every step away from it would look like a loss. At least half of the validation images are
    of the month, so that what is chosen is what the month needs and the older ones only guard.

    Args:
        of_month: which of them are of the month, (len(pool),).
        honest: which of them may validate, (len(pool),).
    """
    data = settings.data
    if data.validation == "newest_month":
        parts = [pool[of_month]]
    elif data.folds > 1:
        parts = [val for n in range(data.repeats) for val in units.deal(pool[honest], data.folds, f"folds/{n}")]
    else:
        new, old = pool[of_month & honest], pool[~of_month & honest]
        share = max(data.validation_fraction, _NEW_SHARE) if len(pool) > len(new) else data.validation_fraction
        val = units.take(new, share * units.counts(new), "validation/new") if len(new) else new
        if len(old):
            share = min(data.validation_fraction, len(val) / len(old)) if len(val) else data.validation_fraction
            val = np.union1d(val, units.take(old, share * units.counts(old), "validation/old"))
        parts = [val]
    folds = []
    for val in parts:
        train = pool[~np.isin(units.of[pool], units.of[val])]
        if data.max_train_per_class is not None:
            train = units.cap(train, data.max_train_per_class, "cap")
        folds.append(Fold(train, val))
    return folds
