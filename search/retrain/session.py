"""What all months of one call share, and what is told of each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from search.retrain.ledger import Ledger
from search.retrain.ledger_rows import MonthRow
from search.settings.schema import Settings
from search.tracking.tracker import Tracker

__all__ = ["MonthOutcome", "Session"]

_METRICS, _TAGS = 500, 50  # of MLflow's 1000 and 100 in a batch


@dataclass(frozen=True)
class MonthOutcome:
    """What became of a month.

    Attributes:
        month: YYYY-MM.
        outcome: bootstrap, promoted, kept (a challenger was tested), not needed (none was asked for) or refused.
        reason: in words, with numbers.
        why: it was done: new, or what changed since it was done before.
        champion_before: version that met the month, None where there was none.
        champion_after: version afterwards.
        challenger: version of the challenger, None where there was none.
        run_id: MLflow run of the month.
        numbers: by name: accuracy_before and accuracy_after (champion before and after, on the held-out images of the
            newest months) with _low and _high, newest_images, the same of regression_ (the regression set) and others_
            (held-out images of other months), action and depth of retraining, trials, seconds, epoch_equivalents
            (epochs of training everything on the images that this month was trained on) and image_passes (the same
            times those images: full passes, forward and backward, of one image).
    """

    month: str
    outcome: str
    reason: str
    why: str
    champion_before: str | None
    champion_after: str | None
    challenger: str | None
    run_id: str | None
    numbers: dict[str, Any]

    @staticmethod
    def of(row: MonthRow) -> MonthOutcome:
        """Of a row of the ledger that is done."""
        return MonthOutcome(
            row.month, row.outcome or "", row.reason or "", row.why, row.champion_before, row.champion_after,
            row.challenger, row.run_id, row.numbers,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Session:
    """What the steps of a month need.

    Attributes:
        settings: all settings.
        console: where to tell of it.
        ledger: what has been done.
        tracker: where runs are logged.
        device: where networks run.
        command: that was given, for the record.
    """

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
        """Where a month's passing files are; `clear` removes it."""
        return self.settings.tracking.root / "retraining" / self.model_name / str(row.id)

    def clear(self, row: MonthRow) -> None:
        """Remove a month's passing files."""
        shutil.rmtree(self.folder(row), ignore_errors=True)

    def say(self, line: str) -> None:
        """Tell the user a line."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def step(self, row: MonthRow, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What the step gives: now, or in an earlier call that was killed after it."""
        done = self.ledger.steps(row).get(name)
        if done is None:
            self.ledger.begin_step(row, name)
            started = time.perf_counter()
            result = work()
            self.ledger.finish_step(row, name, result, time.perf_counter() - started)
            done = self.ledger.steps(row)[name]
        return done[0]

    def seconds(self, row: MonthRow) -> float:
        """Of all finished steps of a month."""
        return sum(seconds for _, seconds in self.ledger.steps(row).values())

    def log(self, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, Any]) -> None:
        """Log as many metrics and tags as there are."""
        for part in _parts(list(metrics.items()), _METRICS):
            self.tracker.log(run_id, dict(part))
        for part in _parts(list(tags.items()), _TAGS):
            self.tracker.log(run_id, {}, tags=dict(part))


def _parts(items: list[tuple[str, Any]], size: int) -> Iterable[list[tuple[str, Any]]]:
    return (items[start : start + size] for start in range(0, len(items), size))
