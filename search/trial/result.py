"""What a trial is asked for and what it gives: parameters, the report of an epoch, the result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lightning_modules.training.optimizers import OPTIMIZERS
from search.trial.machine import Machine

__all__ = ["EpochReport", "TrialParams", "TrialResult", "Verdict", "describe_params"]

Verdict = Literal["train", "stop", "wait"]
"""What becomes of a trial after an epoch: it trains on, is stopped for good, or waits at a rung."""


@dataclass(frozen=True)
class TrialParams:
    """What the search chooses.

    Attributes:
        lr_factor: times that optimizer's reference learning rate.
        freeze_depth: leading blocks that stay frozen, 0..L.
        fostering_beta: weight of the CAM entropy in the loss; None where it is not searched but trainer.fostering.beta.
        network: one of `model.name`; None where that names one alone. No part of the words that checkpoints are known
            by: the task's own digest tells networks apart there.
    """

    optimizer: str
    lr_factor: float
    freeze_depth: int
    fostering_beta: float | None = None
    network: str | None = field(default=None, repr=False)

    def searched(self) -> dict[str, Any]:
        """What the study holds of it: the parameters by name, but for those that it does not search."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def learning_rate(self) -> float:
        """Reference rate of the optimizer x lr_factor."""
        return OPTIMIZERS[self.optimizer].reference_rate * self.lr_factor


@dataclass(frozen=True)
class EpochReport:
    """One epoch of one fold.

    Attributes:
        step: epochs finished in all folds, from 0.
        fold: which fold, from 0.
        epoch: which epoch of the fold, from 0.
        value: mean validation score (`search.metric`) of this epoch over the folds trained so far.
        loss: mean validation log loss, the same way; infinite where training diverged.
        metrics: train_loss, train_accuracy, val_loss, val_accuracy, val_macro_f1, val_weighted_f1; watched_loss and so
            on where the task has images to watch; train_ce, val_ce and so on with fostering (see `Classifier`).
        maps: statistic of the maps -> block -> value, at the rungs of `search.pruner=maps`; else empty.
        map_seconds: wall time of these, no part of `seconds`.
    """

    step: int
    fold: int
    epoch: int
    value: float
    loss: float
    metrics: dict[str, float]
    seconds: float
    maps: dict[str, dict[str, float]] = field(default_factory=dict)
    map_seconds: float = 0.0


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial.

    Attributes:
        value: validation score after the last epoch, mean over the folds that reached it; 0, the worst value, if
            training diverged.
        loss: validation log loss, the same way; infinite if training diverged.
        metrics: of that epoch, means over those folds.
        curve: every epoch of every fold.
        epoch_equivalents: cost in epochs of training everything, of the first network where there are several (see
            `Task.epochs_worth`).
        stopped: `pruned`, `diverged`, `overtime`, `waiting` for one that may go on later, or None for one that ran its
            full length.
        micro_batch: images that went through the network at once; less than the batch size where memory ran out.
            Batch-norm then saw these smaller batches.
        threads: it was computed with; another number may sum in another order.
        machine: on which it ended; None where it was computed on none.
    """

    value: float
    loss: float
    metrics: dict[str, float]
    curve: tuple[EpochReport, ...]
    seconds: float
    epoch_equivalents: float
    stopped: str | None
    micro_batch: int = 0
    threads: int = 0
    machine: Machine | None = None

    @property
    def map_spread(self) -> float | None:
        """How far the maps of the validation images spread, 0 (one position) to 1 (uniform); None where unknown.

        Mean of ce / ln(h w), where a dead map counts 1: a network that shows nothing explains nothing (our own
        definition). Of the last epoch.
        """
        dead, entropy = self.metrics.get("val_dead_maps"), self.metrics.get("val_ce_normalised")
        if dead is None or entropy is None or math.isnan(dead):
            return None
        return dead + (1 - dead) * entropy if dead < 1 else 1.0

    def summary(self) -> dict[str, float]:
        """Its numbers but for the curve and the metrics, by name."""
        spread = self.map_spread
        return {
            **({"map_spread": spread} if spread is not None else {}),
            "value": self.value,
            **({"loss": self.loss} if math.isfinite(self.loss) else {}),
            "epochs": len(self.curve),
            "seconds": self.seconds,
            "epoch_equivalents": self.epoch_equivalents,
            "micro_batch": self.micro_batch,
            "threads": self.threads,
        }


def describe_params(params: TrialParams) -> str:
    """Parameters as one short phrase."""
    beta = "" if params.fostering_beta is None else f" beta={params.fostering_beta:g}"
    network = "" if params.network is None else f"{params.network} "
    return f"{network}{params.optimizer} lr={params.learning_rate:.2g} freeze={params.freeze_depth}{beta}"
