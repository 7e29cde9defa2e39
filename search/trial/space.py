"""The search space of a network: optimizer, learning-rate factor and freeze depth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lightning_modules.errors import InputError
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.freezing import check_freeze_depth
from lightning_modules.training.fostering import check_target
from search.settings.schema import Settings, SpaceSettings
from search.trial.resolution import largest_size
from search.trial.result import TrialParams

if TYPE_CHECKING:
    import optuna

__all__ = ["Space", "build_space", "check_fostering", "fosters"]


@dataclass(frozen=True)
class Space:
    """What a trial may be.

    Attributes:
        lr_factor: (low, high), searched on a log scale.
        freeze_depth: (low, high), both included; an int, so that its bounds may change within a study.
        default: the parameters of trial 0.
        fostering: weights of the CAM entropy in the loss to choose from; None where that is not searched.
    """

    optimizers: tuple[str, ...]
    lr_factor: tuple[float, float]
    freeze_depth: tuple[int, int]
    default: TrialParams
    fostering: tuple[float, ...] | None = None

    @property
    def first(self) -> tuple[TrialParams, ...]:
        """The first trials: the default, and where beta is searched the same with each other beta, so that trials
        that differ in nothing else can be compared."""
        others = (replace(self.default, fostering_beta=b) for b in self.fostering or ())
        return (self.default, *(params for params in others if params != self.default))

    def suggest(self, trial: optuna.Trial) -> TrialParams:
        """Draw parameters from an Optuna trial."""
        return TrialParams(
            optimizer=trial.suggest_categorical("optimizer", self.optimizers),
            lr_factor=trial.suggest_float("lr_factor", *self.lr_factor, log=True),
            freeze_depth=trial.suggest_int("freeze_depth", *self.freeze_depth),
            fostering_beta=trial.suggest_categorical("fostering_beta", self.fostering) if self.fostering else None,
        )


def build_space(settings: SpaceSettings, net: BlockNet, *, beta: float = 0.0) -> Space:
    """The space of these settings for this network.

    Args:
        beta: of trial 0 where it is searched (`trainer.fostering.beta`).

    Raises:
        InputError: a freeze depth the network cannot have, or a default outside the range.
    """
    low, high = settings.freeze_depth or (0, net.num_blocks if net.pretrained else 0)
    for depth in (low, high):
        check_freeze_depth(net, depth)
    default_depth = settings.default_freeze_depth
    if default_depth is None:
        default_depth = min(max(net.num_blocks // 2, low), high)
    if not low <= default_depth <= high:
        raise InputError(f"space.default_freeze_depth must be in {low}..{high}, got {default_depth}")
    default = TrialParams(
        settings.default_optimizer,
        settings.default_lr_factor,
        default_depth,
        beta if settings.fostering is not None else None,
    )
    return Space(settings.optimizers, settings.lr_factor, (low, high), default, settings.fostering)


def fosters(settings: Settings) -> bool:
    """Whether the trials of the search look at maps: to foster them, or because they are compared by them."""
    return (
        settings.trainer.fostering.beta > 0
        or settings.space.fostering is not None
        or settings.search.objective != "accuracy"
    )


def check_fostering(settings: Settings, space: Space, net: BlockNet) -> None:
    """Refuse a target block that these trials cannot foster (`fostering.check_target`).

    Raises:
        InputError: see there.
    """
    if fosters(settings):
        check_target(net, settings.trainer.fostering.block, largest_size(settings), space.freeze_depth[1])
