"""The network of a trial after its best epoch, in a file: whoever wants it need not train it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.freezing import freeze
from lightning_modules.training.classifier import Classifier
from search.trial.checkpoint import DAMAGED, TrialCheckpoint, thawed, write_state

__all__ = ["BestNetwork", "load_network", "save_network"]


@dataclass
class BestNetwork:
    """The best epoch of a trial so far, and its thawed part.

    Attributes:
        metric: a validation score, such as `val_macro_f1`.
        epoch: from 0; -1 before the first.
        score: of that epoch; of equals the earlier one stays.
        state: of the thawed blocks and the head, on the CPU; None where it is not known, as after an interruption.
    """

    metric: str
    epoch: int = -1
    score: float = -math.inf
    state: dict[str, Any] | None = None

    @classmethod
    def of(cls, metric: str, kept: TrialCheckpoint | None) -> BestNetwork:
        """Of a trial that starts, or that goes on from a checkpoint."""
        best = cls(metric)
        for report in kept.curve if kept else ():
            best._is_best(report.epoch, report.metrics)
        if kept:
            best.state = kept.thawed if best.epoch == kept.curve[-1].epoch else kept.best
        return best

    def restart(self) -> None:
        """Forget what was seen: the trial begins anew."""
        self.epoch, self.score, self.state = -1, -math.inf, None

    def see(self, epoch: int, metrics: Mapping[str, float], model: Classifier) -> None:
        """Take over the network of an epoch that has just been validated, if it is better."""
        if self._is_best(epoch, metrics):
            self.state = {name: part.detach().cpu().clone() for name, part in thawed(model.net).state_dict().items()}

    def _is_best(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether an epoch is better than all before it; then it is the one."""
        if (score := metrics.get(self.metric, -math.inf)) <= self.score:
            return False
        self.epoch, self.score = epoch, score
        return True


def save_network(path: Path, best: BestNetwork, *, of: str) -> None:
    """Write the network where there is one; the file is complete or absent.

    Args:
        path: of the file.
        best: of a trial that ran its full length.
        of: what was trained, with which seed.

    Raises:
        OSError: it cannot be written.
    """
    if best.state is not None:
        write_state(path, {"of": of, "epoch": best.epoch, "thawed": best.state})


def load_network(path: Path, net: BlockNet, depth: int, *, of: str, epoch: int) -> bool:
    """Bring `net` to where the trial's network was.

    Args:
        path: what `save_network` wrote.
        net: that the trial started from; in eval mode and frozen as the trial's afterwards, if it is found; of no use
            afterwards where it is not.
        depth: its freeze depth.
        of: what was trained, with which seed.
        epoch: from 0, the one whose network is wanted.

    Returns:
        Whether the file is there, whole, and of this trial and epoch.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        if (kept["of"], kept["epoch"]) != (of, epoch):
            return False
        freeze(net, depth)
        thawed(net).load_state_dict(kept["thawed"])
    except DAMAGED:
        return False
    net.eval()
    return True
