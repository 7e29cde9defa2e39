"""The configurations of the thesis's experiments: which network, which optimizer, how many leading blocks frozen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lightning_modules.errors import InputError
from lightning_modules.networks import backbones
from lightning_modules.training.optimizers import OPTIMIZERS
from search.settings.schema import ModelSettings, Settings
from search.trial.result import TrialParams

__all__ = ["SUBSTITUTE", "Arm", "arms", "available_model", "frozen_name"]

SUBSTITUTE = "efficientnet_lite0"
"""Takes VGG-16's place where its ImageNet weights are not on this machine: its own come with a package."""


@dataclass(frozen=True)
class Arm:
    """One configuration.

    Attributes:
        name: unique in its experiment; the same call again takes it up by this name.
        model: the network.
        params: what it is trained with.
    """

    name: str
    model: ModelSettings
    params: TrialParams


def available_model(model: ModelSettings) -> tuple[ModelSettings, str | None]:
    """The network to transfer from, and why it is not the one asked for; None where it is.

    Raises:
        InputError: random weights, or pre-trained weights that cannot be had, of another network than VGG-16.
    """
    if model.weights == "none":
        raise InputError(
            "this experiment transfers pre-trained weights, got model.weights=none; for random weights take "
            "experiment=thesis_random"
        )
    try:
        net = backbones.build(model.architecture, classes=2, size=(64, 64), weights=model.weights)
    except InputError as error:
        if model.name != "vgg16" or model.weights != "imagenet":
            raise
        return replace(model, name=SUBSTITUTE, width=1.0), str(error)
    return replace(model, name=net.architecture.partition("@")[0]), None


def frozen_name(blocks: tuple[str, ...], depth: int) -> str:
    """How a freeze depth is called: after the last frozen block."""
    if depth == 0:
        return "all trained"
    return "fixed features" if depth == len(blocks) else f"frozen to {blocks[depth - 1]}"


def arms(settings: Settings, model: ModelSettings, blocks: tuple[str, ...]) -> Iterator[Arm]:
    """The configurations of `thesis.part` but for finetune, which depends on the results of transfer.

    Args:
        settings: all settings.
        model: the network of transfer and rates, see `available_model`.
        blocks: names of its blocks; of no account elsewhere.
    """
    space, factor = settings.space, settings.space.default_lr_factor
    part = settings.thesis.part
    if part == "lenet":
        tanh = replace(settings.model, name="lenet5")
        yield Arm("tanh, sgd", tanh, TrialParams("sgd", factor, 0))
        yield Arm("ReLU, adam", replace(tanh, name="lenet5_relu"), TrialParams("adam", factor, 0))
    elif part == "random":
        models = [settings.model]
        if settings.model.name == "vgg16":  # beside what it is compared with where VGG-16 cannot be transferred
            models.append(ModelSettings(SUBSTITUTE, "none"))
        for one in models:
            for optimizer in space.optimizers:
                yield Arm(f"{one.architecture}, {optimizer}", one, TrialParams(optimizer, factor, 0))
    elif part == "transfer":
        low, high = space.freeze_depth or (0, len(blocks))
        for depth in range(high, low - 1, -1):  # the cheap ones first
            for optimizer in space.optimizers:
                name = f"{frozen_name(blocks, depth)}, {optimizer}"
                yield Arm(name, model, TrialParams(optimizer, factor, depth))
    elif part == "rates":
        depth = space.default_freeze_depth if space.default_freeze_depth is not None else len(blocks) // 2
        for rate in settings.thesis.rates:
            for optimizer in space.optimizers:
                factor = rate / OPTIMIZERS[optimizer].reference_rate
                yield Arm(f"{optimizer} at {rate:g}", model, TrialParams(optimizer, factor, depth))
