"""The search space of a network: optimizer, learning-rate factor and freeze depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_modules.blocknet import BlockNet
from lightning_modules.errors import InputError
from lightning_modules.freezing import check_freeze_depth
from search.settings import SpaceSettings
from search.trial_result import TrialParams

if TYPE_CHECKING:
    import optuna

__all__ = ["Space", "build_space"]


@dataclass(frozen=True)
class Space:
    """What a trial may be.

    Attributes:
        optimizers: names to choose from.
        lr_factor: (low, high), searched on a log scale.
        freeze_depth: (low, high), both included; an int, so that its bounds may change within a study.
        default: the parameters of trial 0.
    """

    optimizers: tuple[str, ...]
    lr_factor: tuple[float, float]
    freeze_depth: tuple[int, int]
    default: TrialParams

    def suggest(self, trial: optuna.Trial) -> TrialParams:
        """Draw parameters from an Optuna trial."""
        return TrialParams(
            optimizer=trial.suggest_categorical("optimizer", self.optimizers),
            lr_factor=trial.suggest_float("lr_factor", *self.lr_factor, log=True),
            freeze_depth=trial.suggest_int("freeze_depth", *self.freeze_depth),
        )


def build_space(settings: SpaceSettings, net: BlockNet) -> Space:
    """The space of these settings for this network.

    Raises:
        InputError: a freeze depth the network cannot have, or a default outside the range.
    """
    low, high = settings.freeze_depth or (0, net.depth if net.pretrained else 0)
    for depth in (low, high):
        check_freeze_depth(net, depth)
    default_depth = settings.default_freeze_depth
    if default_depth is None:
        default_depth = min(max(net.depth // 2, low), high)
    if not low <= default_depth <= high:
        raise InputError(f"space.default_freeze_depth must be in {low}..{high}, got {default_depth}")
    default = TrialParams(settings.default_optimizer, settings.default_lr_factor, default_depth)
    return Space(settings.optimizers, settings.lr_factor, (low, high), default)
