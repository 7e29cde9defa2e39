"""What the steps of a month share. A step takes the context and knows no other step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from lightning_modules.errors import InputError
from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.networks.blocknet import BlockNet
from search.retrain.champion import BASELINE, Champion, widened
from search.retrain.ledger import Ledger, MonthRow
from search.retrain.month.baseline import Baseline, measure_baseline
from search.retrain.month.image_roles import MonthPlan, plan_month
from search.retrain.month.images import image_subset, plain_images
from search.retrain.month.record import DataCheck
from search.retrain.months import usable_months
from search.settings.schema import Settings
from search.tracking.models import resolve_model
from search.tracking.tracker import Tracker

__all__ = ["MonthContext", "Session"]

_METRICS, _TAGS = 500, 50  # of MLflow's 1000 and 100 in a batch


@dataclass(frozen=True, eq=False)
class Session:
    """What all months of one call share; `command` is what was given, for the record."""

    settings: Settings
    console: Console
    ledger: Ledger
    tracker: Tracker
    device: torch.device
    command: str

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return self.settings.tracking.model_name

    def folder(self, row: MonthRow) -> Path:
        """Where a month's temporary files are; `clear` removes it."""
        return self.settings.tracking.root / "retraining" / self.model_name / str(row.id)

    def clear(self, row: MonthRow) -> None:
        """Remove a month's temporary files."""
        shutil.rmtree(self.folder(row), ignore_errors=True)

    def say(self, line: str) -> None:
        """Tell the user a line."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def seconds(self, row: MonthRow) -> float:
        """Of all finished steps of a month."""
        return sum(seconds for _, seconds in self.ledger.steps(row).values())

    def network(self, version: str) -> BlockNet:
        """The network of a registered version, on the device."""
        model = resolve_model(f"models:/{self.model_name}/{version}", self.settings.tracking.root)
        return model.net.to(self.device)

    def log(self, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, Any]) -> None:
        """Log as many metrics and tags as there are."""
        for part in _parts(metrics, _METRICS):
            self.tracker.log(run_id, part)
        for part in _parts(tags, _TAGS):
            self.tracker.log(run_id, {}, tags=part)


def _parts(items: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    pairs = list(items.items())
    return [dict(pairs[start : start + size]) for start in range(0, len(pairs), size)]


@dataclass(frozen=True, eq=False)
class MonthContext:
    """One month for one champion.

    What is costly is made when it is first asked for, so that a continued month makes no more than it needs. What
    depends on a step's result may be asked for once that step is done.

    Attributes:
        all_images: of all months, whether they may be used or not.
        usable: months done before whose images may be used.
        trained_on: digests of the images that the champion may have been trained on.
    """

    session: Session
    row: MonthRow
    all_images: ImageSet
    champion: Champion
    run_id: str
    usable: frozenset[str]
    trained_on: frozenset[str]

    @staticmethod
    def of(session: Session, row: MonthRow, images: ImageSet, champion: Champion, run_id: str) -> MonthContext:
        """With what the ledger says of older months and of the champion."""
        ledger = session.ledger
        usable, trained_on = usable_months(ledger.latest()), ledger.trained_on(champion.version)
        return MonthContext(session, row, images, champion, run_id, frozenset(usable), trained_on)

    def step(self, name: str, work: Callable[[MonthContext], Mapping[str, Any]]) -> dict[str, Any]:
        """What the step gives: now, or in an earlier call that was killed after it."""
        ledger = self.session.ledger
        if name not in ledger.steps(self.row):
            ledger.begin_step(self.row, name)
            started = time.perf_counter()
            result = work(self)
            ledger.finish_step(self.row, name, result, time.perf_counter() - started)
        return self.results[name]

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Step -> what it gave, of those finished."""
        return {name: result for name, (result, _) in self.session.ledger.steps(self.row).items()}

    @property
    def settings(self) -> Settings:
        """All settings."""
        return self.session.settings

    @property
    def folder(self) -> Path:
        """Where the month's temporary files are."""
        return self.session.folder(self.row)

    @cached_property
    def check(self) -> DataCheck:
        """What step 1 found."""
        return DataCheck.from_json(self.results["check"])

    def known_classes(self, check: DataCheck) -> tuple[str, ...]:
        """The champion's and the month's, sorted."""
        return tuple(sorted({*self.champion.classes, *check.new_classes}))

    def known_rows(self, classes: tuple[str, ...]) -> Rows:
        """Positions in `all_images` of the month's images and of usable older and newer ones, of these classes."""
        months = {*self.usable, self.row.month}
        records = enumerate(self.all_images.index.records)
        return np.array([i for i, r in records if r.month in months and r.label in classes], np.int64)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The champion's and the month's."""
        return self.known_classes(self.check)

    @cached_property
    def images(self) -> ImageSet:
        """Those of the month and of usable older and newer ones, of classes that are known."""
        return image_subset(self.all_images, self.known_rows(self.classes), self.classes, self.folder, self.session.say)

    @cached_property
    def plan(self) -> MonthPlan:
        """How `images` are used; the roles were given at the end of step 1."""
        roles = self.session.ledger.roles()
        return plan_month(self.images.index, self.row.month, roles, self.settings, trained_on=self.trained_on)

    @cached_property
    def champion_net(self) -> BlockNet:
        """The champion with an output, never the largest, for each class it does not know."""
        return widened(self.champion.model, self.classes).net.to(self.session.device)

    def challenger_net(self) -> BlockNet | None:
        """The challenger, where the search made one."""
        winner = self.results.get("search", {}).get("winner")
        return None if winner is None else self.session.network(winner["version"])

    def baseline(self, net: BlockNet, rows: Rows) -> Baseline:
        """What a network shows of the images at `rows`."""
        index = self.images.index
        return measure_baseline(
            net,
            plain_images(self.images, rows, self.session.device),
            index.labels[rows],
            index.classes,
            groups=[index.records[r].group or index.records[r].digest for r in rows.tolist()],
            seed=self.settings.seed,
        )

    def old_baseline(self) -> Baseline:
        """What the champion showed of the images it was tested on when it was promoted."""
        path = self.session.tracker.artifact(self.champion.run_id, BASELINE)
        if path.is_file():
            return Baseline.load(path)
        return self.baseline(self.champion_net, np.setdiff1d(self.plan.tests, self.plan.month))

    def save_baseline(self, found: Baseline, name: str) -> Path:
        """Write a baseline among the month's temporary files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found.save(self.folder / name)
        return self.folder / name

    @property
    def trainable(self) -> Rows:
        """Rows of the month's images that may be trained on and that the champion was not trained on."""
        return np.intersect1d(self.plan.unseen, self.plan.pool)

    @cached_property
    def month_baseline(self) -> Baseline:
        """What the champion shows of `trainable`: kept in the month's files, measured if not there or damaged."""
        path = self.folder / "month.npz"
        try:
            return Baseline.load(path)
        except InputError as error:
            if path.exists():
                self.session.say(f"{error}; it is made again.")
        found = self.baseline(self.champion_net, self.trainable)
        self.save_baseline(found, path.name)
        return found
