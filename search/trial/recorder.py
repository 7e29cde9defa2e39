"""The callback that turns Lightning's epochs into reports, and the driver's verdicts into stops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl

from lightning_modules.training.classifier import Classifier
from search.errors import TrialCancelledError, TrialOvertimeError
from search.trial.checkpoint import TrialCheckpoint
from search.trial.map_statistics import MapStatistics
from search.trial.result import EpochReport, Verdict

__all__ = ["STOPPED", "Recorder"]

STOPPED = {"stop": "pruned", "wait": "waiting"}
"""What becomes of a trial by the driver's verdict."""
_SHARE_OF_SAVING = 0.05  # of a trial's time at most


class Recorder(pl.Callback):
    """Reports every epoch of one fold and stops the training when it should.

    Args:
        metric: validation score that the driver compares, such as `macro_f1`.
        fold: which fold, from 0.
        curve: reports of the trial so far; those of this fold are added.
        report: called with every report that is new to the driver.
        cancelled: asked before every batch; True raises.
        reported: epochs that the driver has had already.
        resumed: where this fold goes on from, None for its start.
        deadline: `time.perf_counter` at which the trial's time is over.
        save: called between two epochs with what to write down of them.
        save_every: seconds that go by before it is called again; 0 calls it after every epoch.
        maps: what the network's maps say, and after which epochs it is asked for.

    Raises:
        TrialCancelledError: out of the training, when `cancelled` says so.
        TrialOvertimeError: out of the training, at the first batch after the deadline.
    """

    def __init__(
        self,
        metric: str,
        fold: int,
        curve: list[EpochReport],
        *,
        report: Callable[[EpochReport], Verdict] = lambda _: "train",
        cancelled: Callable[[], bool] = lambda: False,
        reported: int = 0,
        resumed: TrialCheckpoint | None = None,
        deadline: float = math.inf,
        save: Callable[[pl.Trainer, Classifier], None] = lambda trainer, model: None,
        save_every: float = math.inf,
        maps: MapStatistics = MapStatistics(),  # noqa: B008 - frozen
    ) -> None:
        self._metric = f"val_{metric}"
        self._fold = fold
        self.curve = curve
        self._report = report
        self._cancelled = cancelled
        self._started = 0.0
        self._first = sum(r.fold < fold for r in curve)
        self._reported = max(reported, len(curve))
        self._deadline = deadline
        self._save, self._save_every = save, save_every
        self._saved, self._next_save = len(curve), time.perf_counter() + save_every
        self._maps = maps
        self.resumed = resumed
        self.stopped: str | None = None

    def restart(self) -> None:
        """Forget this fold: it is trained again. No epoch is reported twice."""
        del self.curve[self._first :]
        self.resumed = None
        self.stopped = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the optimizer to where a resumed trial was."""
        if self.resumed is not None:
            self.resumed.restore_training(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was reached, where it is time to, and start the clock.

        Here and not when an epoch ends: only now has Lightning stepped the schedule.
        """
        now = time.perf_counter()
        new = len(self.curve) > max(self._saved, self._first)
        if new and isinstance(pl_module, Classifier) and now >= self._next_save:
            self._save(trainer, pl_module)
            took = time.perf_counter() - now
            # VGG-16 with nothing frozen is a gigabyte and more.
            pause = max(self._save_every, took / _SHARE_OF_SAVING) if self._save_every else 0.0
            self._saved, self._next_save = len(self.curve), now + took + pause
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave at once if the driver or the clock says so."""
        if self._cancelled():
            raise TrialCancelledError
        if time.perf_counter() >= self._deadline:
            raise TrialOvertimeError

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch and act on the verdict."""
        if not isinstance(pl_module, Classifier):
            raise TypeError(f"a trial trains a Classifier, got {type(pl_module).__name__}")
        epoch = len(pl_module.epoch_metrics) - 1
        metrics = dict(pl_module.epoch_metrics[-1])
        if pl_module.diverged:
            self.stopped = "diverged"
        same = [r.metrics for r in self.curve if r.epoch == epoch] + [metrics]
        value, loss = 0.0, math.inf
        if not self.stopped:
            value, loss = (float(np.mean([one[name] for one in same])) for name in (self._metric, "val_loss"))
        seconds, step = time.perf_counter() - self._started, len(self.curve)
        maps: dict[str, dict[str, float]] = {}
        map_seconds = 0.0
        if not self.stopped and step >= self._reported and step + 1 in self._maps.at:
            maps, map_seconds = self._maps.read(pl_module, step + 1)
        report = EpochReport(
            step=step,
            fold=self._fold,
            epoch=epoch,
            value=value,
            loss=loss,
            metrics=metrics,
            seconds=seconds,
            maps=maps,
            map_seconds=map_seconds,
        )
        self.curve.append(report)
        verdict = self._report(report) if report.step >= self._reported else "train"
        self._reported = max(self._reported, report.step + 1)
        if verdict != "train" and not self.stopped:
            self.stopped = STOPPED[verdict]
        if self.stopped:
            trainer.should_stop = True
