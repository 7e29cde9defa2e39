"""Roles of images: nobody trains on what is held out, whatever arrives later, and groups stay together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.images.index import ImageIndex, ImageRecord
from search.retrain.ledger import Role
from search.retrain.month.image_roles import month_roles, plan_month
from search.settings.schema import DataSettings, Settings

MONTHS = ("2020-01", "2020-02", "2020-03")


def index_of(months: tuple[str, ...], *, seed: int, new_class: str | None = None) -> ImageIndex:
    """Thirty images a month in groups of one to four, some groups going on into the next month."""
    rng = np.random.default_rng(seed)
    records = []
    for number, month in enumerate(MONTHS):
        for image in range(30):
            label = new_class if new_class and number == 2 and image < 6 else ("a", "b", "c")[image % 3]
            group = f"plate {number * 9 + int(rng.integers(0, 11))}" if image % 5 else None
            digest = f"{seed}-{number}-{image:02d}"
            records.append(ImageRecord(Path(f"{digest}.png"), label, month, group, None, None, digest))
    kept = tuple(sorted((r for r in records if r.month in months), key=lambda r: r.digest))
    return ImageIndex(kept, tuple(sorted({r.label for r in kept})))


def through(seed: int, *, new_class: str | None = None) -> tuple[ImageIndex, dict[str, tuple[Role, str]]]:
    """Roles given month by month."""
    roles: dict[str, tuple[Role, str]] = {}
    for number in range(1, len(MONTHS) + 1):
        index = index_of(MONTHS[:number], seed=seed, new_class=new_class)
        given = month_roles(index, MONTHS[number - 1], roles, fraction=0.4, seed=0)
        assert not given.keys() & roles.keys()
        roles |= given
    return index, roles


def trained_by(roles: dict[str, tuple[Role, str]], month: str) -> set[str]:
    """Digests of what a champion of this month was trained on."""
    return {digest for digest, (role, came) in roles.items() if role == "training" and came <= month}


@pytest.mark.parametrize("seed", range(8))
def test_every_image_gets_one_role_and_groups_are_not_torn(seed: int) -> None:
    index, roles = through(seed)
    assert set(roles) == {record.digest for record in index.records}
    of_group = defaultdict(set)
    for record in index.records:
        if record.group is not None and roles[record.digest][0] != "out":
            of_group[record.group].add(roles[record.digest][0])
    assert all(len(found) == 1 for found in of_group.values())
    share = np.mean([role == "held_out" for role, _ in roles.values()])
    assert 0.25 < share < 0.55


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_never_trains_on_what_is_held_out(seed: int) -> None:
    index, roles = through(seed)
    plan = plan_month(index, "2020-03", roles, Settings(), trained_on=trained_by(roles, "2020-01"))
    role = np.array([roles[record.digest][0] for record in index.records])
    assert set(role[plan.pool]) == {"training"}
    assert set(role[plan.newest]) == set(role[plan.own]) == {"held_out"}
    assert not set(plan.pool.tolist()) & set(plan.tests.tolist())
    for fold in (*plan.folds, *plan.folds_anew):
        assert not set(fold.train.tolist()) & set(fold.val.tolist())
        assert {*fold.train.tolist(), *fold.val.tolist()} <= set(plan.pool.tolist())
        groups = [{index.records[row].group for row in part.tolist()} - {None} for part in (fold.train, fold.val)]
        assert not groups[0] & groups[1]


def test_the_regression_set_is_the_same_in_every_month_and_other_tests_are_kept_beside_it() -> None:
    index, roles = through(2)
    for record in index.records:
        if record.month == "2020-01" and roles[record.digest][0] == "held_out":
            roles[record.digest] = ("regression", "2020-01")
    one_month = replace(Settings(), retrain=replace(Settings().retrain, pool_months=1))
    sets = []
    for month in MONTHS[1:]:
        plan = plan_month(index, month, roles, one_month, trained_on=())
        parts = [{index.records[row].digest for row in rows.tolist()}
                 for rows in (plan.regression, plan.newest, plan.others)]  # fmt: skip
        sets.append(parts[0])
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(plan.tests)
        assert {roles[digest] for digest in parts[2]} == {("held_out", other) for other in MONTHS[1:] if other != month}
    assert sets[0] == sets[1] == {digest for digest, (role, _) in roles.items() if role == "regression"} != set()


def test_what_the_champion_was_not_trained_on_is_by_image_not_by_month() -> None:
    index, roles = through(3)
    late = {digest for digest, (role, month) in sorted(roles.items()) if (role, month) == ("training", "2020-03")}
    late = set(sorted(late)[:5])
    plan = plan_month(index, "2020-03", roles, Settings(), trained_on=trained_by(roles, "2020-03") - late)
    unseen = {index.records[row].digest for row in plan.unseen.tolist()}
    assert unseen == late | {d for d, (role, month) in roles.items() if month == "2020-03" and role != "training"}
    assert {index.records[row].digest for row in plan.folds[0].val.tolist()} <= late


def test_of_a_new_class_something_is_left_to_train_on() -> None:
    for seed in range(8):
        index, roles = through(seed, new_class="crack")
        found = [roles[record.digest][0] for record in index.records if record.label == "crack"]
        assert "training" in found


def test_a_small_month_is_pooled_with_those_before() -> None:
    index, roles = through(0)
    plan = plan_month(index, "2020-03", roles, Settings(), trained_on=trained_by(roles, "2020-02"))
    assert len(plan.own) < 100 and plan.newest_months == ("2020-03", "2020-02", "2020-01")
    assert set(plan.own.tolist()) < set(plan.newest.tolist())


@pytest.mark.parametrize(
    ("champion_month", "validated"),
    [
        ("2020-02", {"2020-03"}),
        ("2020-01", {"2020-02", "2020-03"}),  # a month whose challenger was refused
        ("2020-03", {"2020-01", "2020-02", "2020-03"}),  # a month done again: there is nothing it has not seen
    ],
)
def test_what_the_champion_was_trained_on_does_not_validate_a_search_from_it(
    champion_month: str, validated: set[str]
) -> None:
    index, roles = through(1)
    for data in (DataSettings(), DataSettings(folds=2)):
        settings = replace(Settings(), data=data)
        plan = plan_month(index, "2020-03", roles, settings, trained_on=trained_by(roles, champion_month))
        months = [{index.records[row].month for fold in folds for row in fold.val.tolist()}
                  for folds in (plan.folds, plan.folds_anew)]  # fmt: skip
        assert months == [validated, {"2020-01", "2020-02", "2020-03"}]
        val = [index.records[row].month for row in plan.folds[0].val.tolist()]
        assert data.folds > 1 or val.count("2020-03") >= len(val) / 2
