"""The LightningModule of a trial: head and thawed blocks, trained on what leaves the frozen blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.attention_branch import both_answers
from lightning_modules.networks.batch_norm import reestimate_batch_norm
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.freezing import freeze
from lightning_modules.training.fostering import Fostering
from lightning_modules.training.optimizers import build_optimizer
from lightning_modules.training.scores import scores

__all__ = ["Classifier"]


class Classifier(pl.LightningModule):
    """Trains what lies behind the freeze depth, from the batches of `datamodule.ActivationBatches`.

    Nothing is logged by step. `epoch_metrics` grows by one row an epoch: training loss and accuracy in train mode,
    then the validation scores after thawed batch-norm was re-estimated. With `fostering` there are also train_ce and
    train_dead_maps, over the maps of the training steps (where beta > 0), and val_ce, val_ca and so on, over those of
    the validation images (see `fostering.map_scores`). A network with an attention branch is trained by both its
    answers; the branch's are in train_branch_loss and train_branch_accuracy, and no score has them.

    Args:
        net: is frozen to `freeze_depth` here.
        freeze_depth: 0..L.
        lr_factor: times the optimizer's reference rate.
        schedule: `constant`, or `cosine` from the rate to 0 over `epochs`.
        class_weights: (classes,) weights of the loss, or None.
        label_smoothing: share of a training label that is spread evenly over the classes, in [0, 1); scores do not
            have it.
        statistics: gives activations of training images for re-estimating batch-norm.
        fostering: makes the entropy of maps part of the loss; None looks at no map. Made for this `net`.
        judges: "val" and "watched" -> from the logits (N, classes) on all that is shown of it, in order, the logits
            (M, classes) and labels (M,) that are scored: those of images, where tiles are shown. Without one what is
            shown is scored as it is.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        net: BlockNet,
        freeze_depth: int,
        optimizer: str,
        lr_factor: float,
        *,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        epochs: int = 1,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        statistics: Callable[[], Iterable[Tensor]] = tuple,
        fostering: Fostering | None = None,
        judges: Mapping[str, Callable[[Tensor], tuple[Tensor, Tensor]]] | None = None,
    ) -> None:
        super().__init__()
        if schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule must be constant or cosine, got {schedule!r}")
        self.net = net
        freeze(net, freeze_depth)
        self.freeze_depth = freeze_depth
        self._optimizer = (optimizer, lr_factor, weight_decay)
        self._schedule = (schedule, epochs)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._label_smoothing = label_smoothing
        self._statistics = statistics
        self._fostering = fostering
        self._judges = judges or {}
        if fostering is not None and fostering.beta > 0 and net.attention_block is not None:
            raise ValueError("a network with an attention branch is not fostered")
        self._loss = self._correct = torch.zeros(())
        self._branch: tuple[Tensor, Tensor] | None = None  # loss and correct answers of the attention branch, summed up
        self._seen = 0
        self._outputs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.epoch_metrics: list[dict[str, float]] = []
        self.diverged = False
        """Whether the last epoch's training loss, or an output or loss on what was scored then, was not finite."""

    def configure_optimizers(self) -> Any:
        """The optimizer over what requires gradients, and the schedule by epoch."""
        name, factor, decay = self._optimizer
        optimizer = build_optimizer(name, self.net.parameters(), lr_factor=factor, weight_decay=decay)
        if self._schedule[0] == "constant":
            return optimizer
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self._schedule[1])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}

    def on_train_epoch_start(self) -> None:
        """Reset the running sums, which stay on the device until the epoch's end."""
        self._loss = torch.zeros((), device=self.device)
        self._correct = torch.zeros((), device=self.device)
        self._branch = None
        self._seen = 0
        if self._fostering is not None:
            self._fostering.start_epoch()

    def training_step(self, batch: tuple[Tensor, Tensor, float]) -> Tensor:
        """Cross-entropy of one batch or micro-batch, and beta times the mean entropy of its live maps.

        With an attention branch that of both answers, as a sum.
        """
        activations, labels, share = batch
        term: Tensor | None = None
        if self.net.attention_block is not None:
            logits, own = both_answers(self.net, activations, self.freeze_depth)
            term = self._branch_loss(own, labels)
        elif self._fostering is not None and self._fostering.beta > 0:
            logits, term = self._fostering.train_on(activations, labels, self.freeze_depth)
        else:
            logits = self.net.suffix(activations, self.freeze_depth)
        loss = self._cross_entropy(logits, labels)
        self._loss += loss.detach() * len(labels)
        self._correct += (logits.detach().argmax(1) == labels).sum()
        self._seen += len(labels)
        if term is not None:
            loss = loss + term
        return loss if share == 1 else loss * share

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=self._label_smoothing)

    def _branch_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = self._cross_entropy(logits, labels)
        found = (loss.detach() * len(labels), (logits.detach().argmax(1) == labels).sum())
        before = self._branch
        self._branch = found if before is None else (before[0] + found[0], before[1] + found[1])
        return loss

    def on_train_epoch_end(self) -> None:
        """Close the epoch; Lightning runs validation before this hook, so the row may exist already."""
        self._training_row()

    def _training_row(self) -> dict[str, float]:
        if len(self.epoch_metrics) <= self.current_epoch:
            seen = max(self._seen, 1)
            row = {"train_loss": float(self._loss) / seen, "train_accuracy": float(self._correct) / seen}
            if self._branch is not None:
                names = ("train_branch_loss", "train_branch_accuracy")
                row.update({name: float(total) / seen for name, total in zip(names, self._branch, strict=True)})
            if self._fostering is not None:
                row.update({f"train_{name}": value for name, value in self._fostering.of_training().items()})
            self.epoch_metrics.append(row)
        return self.epoch_metrics[-1]

    def on_validation_epoch_start(self) -> None:
        """Bring batch-norm up to the weights of this moment."""
        self.reestimate()
        self._outputs = {}

    def validation_step(self, batch: tuple[Tensor, Tensor, float], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the logits: scores are taken over the whole validation set, and what is watched beside it, at once."""
        activations, labels, _ = batch
        if self._fostering is not None and dataloader_idx == 0:
            logits = self._fostering.watch(activations, labels, self.freeze_depth)
        else:
            logits = self.net.suffix(activations, self.freeze_depth)
        self._outputs.setdefault(("val", "watched")[dataloader_idx], []).append((logits, labels))

    def on_validation_epoch_end(self) -> None:
        """Scores of the epoch."""
        row, found = self._training_row(), {}
        finite = math.isfinite(row["train_loss"]) and math.isfinite(row.get("train_branch_loss", 0.0))
        for scored, outputs in self._outputs.items():
            logits, labels = (torch.cat(part) for part in zip(*outputs, strict=True))
            finite = finite and bool(logits.isfinite().all())
            if (judge := self._judges.get(scored)) is not None:
                logits, labels = judge(logits)
            found.update({f"{scored}_{name}": value for name, value in scores(logits, labels).items()})
        self.diverged = not (finite and all(map(math.isfinite, found.values())))
        if not self.diverged:
            row.update(found)
            if self._fostering is not None:
                row.update({f"val_{name}": value for name, value in self._fostering.of_watched().items()})

    def reestimate(self) -> None:
        """Re-estimate thawed batch-norm from the training images given as `statistics`."""
        reestimate_batch_norm(self.net, self._statistics(), self.freeze_depth)
