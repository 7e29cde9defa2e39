"""What a trial leaves on disk: a checkpoint, from which it goes on as if it had never stopped, and its network."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import nn

from lightning_modules.errors import printable
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.freezing import freeze
from lightning_modules.training.classifier import Classifier
from lightning_modules.whole_file import DamagedFileError, check_digest, from_cache, whole_file
from search.trial.result import EpochReport

__all__ = ["TrialCheckpoint", "load_checkpoint", "load_network", "save_checkpoint", "save_network"]

# What a file of another version, or of something else altogether, raises; a pickle that would run code as well.
_UNREADABLE = (RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError, pickle.UnpicklingError)

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class TrialCheckpoint:
    """State of a trial between two epochs.

    Attributes:
        of: what was trained, with which seed.
        parts: micro-batches a batch is split into.
        seconds: it has taken so far.
        thawed: state of the thawed blocks and the head; frozen ones are the pre-trained network's.
        scheduler: its state, None without a schedule.
        generators: states of torch's random generators, by device; dropout draws from them.
    """

    of: str
    curve: tuple[EpochReport, ...]
    fold: int
    parts: int
    seconds: float
    thawed: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None
    generators: dict[str, torch.Tensor]

    def restore_model(self, model: Classifier) -> None:
        """Bring a model that was made for the same trial to where this one was."""
        _thawed(model.net).load_state_dict(self.thawed)
        model.epoch_metrics = [dict(r.metrics) for r in self.curve if r.fold == self.fold]

    def restore_training(self, trainer: pl.Trainer) -> None:
        """The same for the optimizer, its schedule and the random generators; call when training starts."""
        trainer.optimizers[0].load_state_dict(self.optimizer)
        if self.scheduler is not None:
            trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.scheduler)
        torch.set_rng_state(self.generators["cpu"])
        if "cuda" in self.generators:
            torch.cuda.set_rng_state(self.generators["cuda"])


def save_checkpoint(
    path: Path,
    trainer: pl.Trainer,
    model: Classifier,
    curve: Sequence[EpochReport],
    *,
    of: str,
    seconds: float,
) -> None:
    """Write the state of a trial whose last epoch is over; the file is complete or absent.

    Args:
        path: of the file; its folder is made.
        trainer: has stopped, or begins the next epoch.
        of: what is trained, with which seed.
        seconds: the trial has taken so far.

    Raises:
        OSError: it cannot be written.
    """
    configs = trainer.lr_scheduler_configs
    state = {
        "of": of,
        "curve": [asdict(report) for report in curve],
        "fold": curve[-1].fold,
        "parts": trainer.accumulate_grad_batches,
        "seconds": seconds,
        "thawed": _thawed(model.net).state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "scheduler": configs[0].scheduler.state_dict() if configs else None,
        "generators": {
            "cpu": torch.get_rng_state(),
            **({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}),
        },
    }
    _write(path, state)


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write a file that `_read` reads; it is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path, digest=True) as temporary:  # a slot has one trial, and a trial one worker
            torch.save(state, temporary)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(str(error).splitlines()[0]) from error


def _read(path: Path, make: Callable[[dict[str, Any]], _Made]) -> _Made:
    """What `make` makes of what `_write` wrote; raises `DamagedFileError`, or `OSError` where there is no file."""
    check_digest(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles by other protocols than PyTorch's
            return make(torch.load(path, map_location="cpu", weights_only=True))
    except _UNREADABLE:
        raise DamagedFileError(f"{printable(path)} cannot be read") from None


def load_checkpoint(path: Path, *, of: str, on_note: Callable[[str], None] = lambda _: None) -> TrialCheckpoint | None:
    """The checkpoint at `path`; None where there is none, it is damaged, or it is of another trial.

    Args:
        on_note: called with a line for the user where it is damaged.
    """

    def make(state: dict[str, Any]) -> TrialCheckpoint:
        return TrialCheckpoint(curve=tuple(EpochReport(**report) for report in state.pop("curve")), **state)

    found = from_cache(path, partial(_read, make=make), on_note, then="its trial starts anew")
    return found if found is not None and found.of == of else None


def _thawed(net: BlockNet) -> nn.ModuleList:
    """The blocks that train, and the head."""
    return nn.ModuleList([*net.blocks[net.freeze_depth :], net.head])


def save_network(path: Path, net: BlockNet, *, of: str, epoch: int) -> None:
    """Write the thawed part of a trial's network; the file is complete or absent.

    Args:
        of: what was trained, with which seed.
        epoch: its last one, from 0.

    Raises:
        OSError: it cannot be written.
    """
    _write(path, {"of": of, "epoch": epoch, "thawed": _thawed(net).state_dict()})


def load_network(
    path: Path,
    net: BlockNet,
    freeze_depth: int,
    *,
    of: str,
    epoch: int,
    on_note: Callable[[str], None] = lambda _: None,
) -> bool:
    """Bring `net` to where the trial's network was.

    Args:
        path: what `save_network` wrote.
        net: that the trial started from; in eval mode and frozen as the trial's afterwards, if it is found; of no use
            afterwards where it is not.
        of: what was trained, with which seed.
        epoch: from 0, the one whose network is wanted.
        on_note: called with a line for the user where the file is damaged.

    Returns:
        Whether the file is there, whole, and of this trial and epoch.
    """

    def make(saved: dict[str, Any]) -> bool:
        if (saved["of"], saved["epoch"]) != (of, epoch):
            return False
        freeze(net, freeze_depth)
        _thawed(net).load_state_dict(saved["thawed"])
        net.eval()
        return True

    return from_cache(path, partial(_read, make=make), on_note, then="the network is trained again") or False
