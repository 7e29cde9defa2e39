"""A search as Optuna's examples write it, with timm's network in place of theirs: everything is trained in every trial.

Taken from its example for Lightning: MedianPruner, dropout in [0.2, 0.5], 10 epochs a trial, validation accuracy logged
once an epoch, which also stops trials; from its example for PyTorch: Adam, RMSprop or SGD and a learning rate in
[1e-5, 1e-1] on a log scale. Changed: 30 trials instead of 100, batches of 32 instead of 128 (there may be 60 images),
mild views of the training images, and a pruning callback of our own, since Optuna's is for the package `lightning`.
In the end the best configuration is trained again on training and validation images together.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

from benchmarks.peers.contract import Job, Lists, answer
from benchmarks.peers.rivals.images import batches, network, predicted

_TRIALS, _EPOCHS = 30, 10


class LightningNet(pl.LightningModule):
    """The network as one module, everything trained."""

    def __init__(self, net: nn.Module, optimizer: str, rate: float) -> None:
        super().__init__()
        self.net, self._optimizer, self._rate = net, optimizer, rate

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images.contiguous(memory_format=torch.channels_last)), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        found = self.net(images.contiguous(memory_format=torch.channels_last)).argmax(1)
        self.log("val_acc", (found == labels).float().mean(), batch_size=len(labels))

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self._optimizer)(self.net.parameters(), lr=self._rate)


class Pruning(pl.Callback):
    """Reports the validation accuracy of each epoch, and stops what the pruner stops."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._trial.report(float(trainer.callback_metrics["val_acc"]), trainer.current_epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _train(job: Job, lists: Lists, params: dict[str, Any], trial: optuna.Trial | None) -> LightningNet:
    """Train one configuration; in a trial on the training images, else on all labelled ones."""
    net = network(job.weights, len(lists.classes), drop_rate=params["dropout"])
    model = LightningNet(net, params["optimizer"], params["lr"])
    views = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(0, translate=(0.05, 0.05)),
        transforms.ColorJitter(brightness=0.05, contrast=0.1),
    ]
    files = lists.labelled if trial is None else lists.train
    loaders = [batches(files, lists.size, lists.fit, views=views, train=True)]
    if trial is not None:
        loaders.append(batches(lists.val, lists.size, lists.fit, train=False))
    trainer = pl.Trainer(
        default_root_dir=job.folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=job.options.get("epochs", _EPOCHS),
        accelerator="cpu",
        devices=1,
        callbacks=[] if trial is None else [Pruning(trial)],
    )
    trainer.fit(model, *loaders)
    if trial is not None:
        trial.set_user_attr("val_acc", float(trainer.callback_metrics["val_acc"]))
    return model


def main() -> None:
    """Search, train the best again, predict the test images."""
    job = Job.of_command_line()
    lists = Lists.read(Path(job.lists))
    torch.set_num_threads(job.threads)
    pl.seed_everything(job.seed, verbose=False)

    def objective(trial: optuna.Trial) -> float:
        params = {
            "dropout": trial.suggest_float("dropout", 0.2, 0.5),
            "optimizer": trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"]),
            "lr": trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        }
        _train(job, lists, params, trial)
        return float(trial.user_attrs["val_acc"])

    sampler = optuna.samplers.TPESampler(seed=job.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=job.options.get("trials", _TRIALS))
    best = study.best_trial
    model = _train(job, lists, best.params, None)
    trained_at = time.time()
    answer(
        job,
        trained_at=trained_at,
        predicted=predicted(model.net, lists.test, lists.size, lists.fit),
        settings={"size": list(lists.size), "trials": len(study.trials), "validation": best.value, **best.params},
        packages=("torch", "timm", "optuna", "pytorch-lightning"),
    )


if __name__ == "__main__":
    main()
