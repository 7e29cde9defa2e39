"""What the steps of a month share. A step takes the context and imports no other step."""

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
from search.command_line.plain_line import print_line
from search.retrain.champion import BASELINE, Champion, widened
from search.retrain.ledger import Ledger, MonthRow
from search.retrain.month.baseline import Baseline, measure_baseline
from search.retrain.month.image_roles import MonthPlan, plan_month, regression_gap
from search.retrain.month.images import image_subset, shown_images
from search.retrain.month.record import DataCheck
from search.retrain.months import usable_months
from search.settings.schema import Settings
from search.tracking.models import resolve_model
from search.tracking.tracker import Tracker

__all__ = ["MonthContext", "Session"]


@dataclass(frozen=True, eq=False)
class Session:
    """What all months of one call share.

    Attributes:
        settings: those of the months; of several networks they name the champion's once there is one.
        command: what was given, for the record.
        given: the settings with all the networks that were given, which decide whether a month must be done again.
    """

    settings: Settings
    console: Console
    ledger: Ledger
    tracker: Tracker
    device: torch.device
    command: str
    given: Settings

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
        print_line(self.console, line)

    def seconds(self, row: MonthRow) -> float:
        """Of all finished steps of a month."""
        return sum(seconds for _, seconds in self.ledger.steps(row).values())

    def network(self, version: str) -> BlockNet:
        """The network of a registered version, on the device."""
        model = resolve_model(f"models:/{self.model_name}/{version}", self.settings.tracking.root)
        return model.net.to(self.device)


@dataclass(frozen=True, eq=False)
class MonthContext:
    """One month for one champion.

    What is costly is made when it is first asked for, so that a continued month makes no more than it needs. What
    depends on a step's result may be asked for once that step is done.

    Attributes:
        all_images: of all months, whether they may be used or not.
    """

    session: Session
    row: MonthRow
    all_images: ImageSet
    champion: Champion
    run_id: str

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
    def usable(self) -> set[str]:
        """Months done before whose images may be used."""
        return usable_months(self.session.ledger.months())

    @cached_property
    def check(self) -> DataCheck:
        """What step 1 found."""
        return DataCheck.from_json(self.results["check"])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The champion's and the month's, sorted."""
        records = self.all_images.index.records
        return tuple(sorted({*self.champion.classes, *(r.label for r in records if r.month == self.row.month)}))

    @cached_property
    def regression_gap(self) -> str:
        """What is missing of the regression set, and what accepts that; empty where nothing is (`regression_gap`)."""
        gap = regression_gap(self.session.ledger, self.all_images.index, self.row.month, self.champion)
        accepted = "depth=none" if self.settings.retrain.depth == "none" else "regression=shrink"
        return gap and f"{gap}; retrain.{accepted} goes on without them."

    @cached_property
    def images(self) -> ImageSet:
        """Those of the month and of usable older and newer ones, of classes that are known."""
        months, records = {*self.usable, self.row.month}, enumerate(self.all_images.index.records)
        rows = np.array([i for i, r in records if r.month in months and r.label in self.classes], np.int64)
        return image_subset(self.all_images, rows, self.classes, self.folder, self.session.say)

    @cached_property
    def plan(self) -> MonthPlan:
        """How `images` are used; the roles were given at the end of step 1."""
        roles = self.session.ledger.roles()
        return plan_month(self.images.index, self.row.month, roles, self.settings, trained_on=self.champion.trained_on)

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
            shown_images(net, self.images, rows),
            index.labels[rows],
            index.classes,
            groups=[index.records[r].group or index.records[r].digest for r in rows.tolist()],
            seed=self.settings.seed,
        )

    def old_baseline(self) -> Baseline:
        """What the champion showed of the images it was tested on when it was promoted."""
        try:
            return Baseline.load(self.session.tracker.artifact(self.champion.run_id, BASELINE))
        except InputError:  # gone or damaged
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
