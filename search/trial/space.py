"""The search space: optimizer, learning-rate factor and freeze depth, and the network where there are several."""

from __future__ import annotations

from collections.abc import Mapping
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

__all__ = ["Space", "build_space", "check_fostering", "depths_of", "fosters", "spread_depths"]


@dataclass(frozen=True)
class Space:
    """What a trial may be.

    Attributes:
        lr_factor: (low, high), searched on a log scale.
        freeze_depth: (low, high), both included; an int, so that its bounds may change within a study.
        default: the parameters of trial 0.
        fostering: weights of the CAM entropy in the loss to choose from; None where that is not searched.
        networks: network -> its range of freeze depths, the default's network first; None where there is one. Then
            `freeze_depth` is that of the first.
        depths: freeze depths at which the default is tried first, its own the first of them; see `spread_depths`.
    """

    optimizers: tuple[str, ...]
    lr_factor: tuple[float, float]
    freeze_depth: tuple[int, int]
    default: TrialParams
    fostering: tuple[float, ...] | None = None
    networks: Mapping[str, tuple[int, int]] | None = None
    depths: tuple[int, ...] = ()

    @property
    def first(self) -> tuple[TrialParams, ...]:
        """The first trials: the default, and the same at other freeze depths. Where networks or beta are searched, in
        place of these the same with each other network and each other beta, so that trials that differ in nothing else
        can be compared. A network of other depths has half of them frozen."""
        others = [
            replace(
                self.default,
                network=name,
                freeze_depth=self.default.freeze_depth if depths == self.freeze_depth else sum(depths) // 2,
            )
            for name, depths in (self.networks or {}).items()
            if name != self.default.network
        ]
        betas = [replace(self.default, fostering_beta=b) for b in self.fostering or ()]
        spread = (
            []
            if self.networks or self.fostering
            else [replace(self.default, freeze_depth=depth) for depth in self.depths]
        )
        return (self.default, *(params for params in (*others, *betas, *spread) if params != self.default))

    @property
    def in_full(self) -> int:
        """How many of the first trials always run in full: the default at its freeze depths."""
        return 1 if self.networks or self.fostering else len(self.first)

    def suggest(self, trial: optuna.Trial) -> TrialParams:
        """Draw parameters from an Optuna trial; the freeze depth from the range of the network drawn."""
        network = trial.suggest_categorical("network", tuple(self.networks)) if self.networks else None
        return self.suggest_for(trial, network)

    def suggest_for(self, trial: optuna.Trial, network: str | None) -> TrialParams:
        """Draw the parameters beside this network from a trial of a study that knows of no other."""
        depths = self.freeze_depth if network is None or self.networks is None else self.networks[network]
        return TrialParams(
            optimizer=trial.suggest_categorical("optimizer", self.optimizers),
            lr_factor=trial.suggest_float("lr_factor", *self.lr_factor, log=True),
            freeze_depth=trial.suggest_int("freeze_depth", *depths),
            fostering_beta=trial.suggest_categorical("fostering_beta", self.fostering) if self.fostering else None,
            network=network,
        )


def depths_of(settings: SpaceSettings, net: BlockNet) -> tuple[int, int]:
    """The range of freeze depths of these settings for a network.

    Raises:
        InputError: a depth the network cannot have.
    """
    low, high = settings.freeze_depth or (0, net.deepest if net.pretrained else 0)
    for depth in (low, high):
        check_freeze_depth(net, depth)
    return low, high


def build_space(
    settings: SpaceSettings, net: BlockNet, *, beta: float = 0.0, others: Mapping[str, BlockNet] | None = None
) -> Space:
    """The space of these settings for this network.

    Args:
        net: the network, or the first of several.
        beta: of trial 0 where it is searched (`trainer.fostering.beta`).
        others: every network by its name, the first among them, where the search chooses among several.

    Raises:
        InputError: a freeze depth the network cannot have, or a default outside the range.
    """
    low, high = depths_of(settings, net)
    default_depth = settings.default_freeze_depth
    if default_depth is None:
        default_depth = min(max(net.num_blocks // 2, low), high)
    if not low <= default_depth <= high:
        raise InputError(f"space.default_freeze_depth must be in {low}..{high}, got {default_depth}")
    default = TrialParams(
        settings.first_optimizer,
        settings.default_lr_factor,
        default_depth,
        beta if settings.fostering is not None else None,
        next(iter(others)) if others else None,
    )
    networks = {name: depths_of(settings, other) for name, other in others.items()} if others else None
    depths = spread_depths(default_depth, (low, high), settings.default_depths)
    return Space(settings.optimizers, settings.lr_factor, (low, high), default, settings.fostering, networks, depths)


def spread_depths(default: int, depths: tuple[int, int], most: int) -> tuple[int, ...]:
    """The default freeze depth, then at most `most` - 1 others: 1/2, all, 1/4, 3/4, none, 3/8, 5/8, ... of the range.

    Networks that were thawed at places far apart err on different images, so they make a good committee; one that is
    frozen throughout costs next to nothing (docs/results.md, "Judges and committees").

    Example:
        >>> spread_depths(4, (0, 8), 5)
        (4, 8, 2, 6, 0)
    """
    low, high = depths
    eighths = (4, 8, 2, 6, 0, 3, 5, 1, 7)
    found = dict.fromkeys([default, *(low + (high - low) * eighth // 8 for eighth in eighths)])
    return tuple(found)[:most]


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
        deepest = depths_of(settings.space, net)[1] if space.networks else space.freeze_depth[1]
        check_target(net, settings.trainer.fostering.block, largest_size(settings), deepest)
