"""Optimizers by their field names, each with the reference learning rate that the searched factor multiplies.

One shared range of learning rates makes the adaptive family "fail" by construction: a rate that suits SGD is a
hundred times too large for RMSprop. So the search draws a factor around each optimizer's own reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import nn, optim

from lightning_modules.errors import InputError

__all__ = ["OPTIMIZERS", "OptimizerSpec", "build_optimizer"]


@dataclass(frozen=True)
class OptimizerSpec:
    """How to build an optimizer and where its learning rate is centred.

    Attributes:
        build: called as build(parameters, lr=..., weight_decay=...).
        reference_rate: learning rate at factor 1, for fine-tuning at batch sizes of about 32.
    """

    build: Callable[..., optim.Optimizer]
    reference_rate: float


OPTIMIZERS: dict[str, OptimizerSpec] = {
    "sgd": OptimizerSpec(optim.SGD, 1e-1),
    "momentum": OptimizerSpec(partial(optim.SGD, momentum=0.9), 1e-2),
    "nag": OptimizerSpec(partial(optim.SGD, momentum=0.9, nesterov=True), 1e-2),
    "adam": OptimizerSpec(optim.Adam, 1e-3),
    "rmsprop": OptimizerSpec(optim.RMSprop, 3e-4),
    "adagrad": OptimizerSpec(optim.Adagrad, 1e-2),
    "adadelta": OptimizerSpec(optim.Adadelta, 1.0),
    "nadam": OptimizerSpec(optim.NAdam, 1e-3),
    "adamw": OptimizerSpec(optim.AdamW, 1e-3),
}


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], *, lr_factor: float, weight_decay: float = 0.0
) -> optim.Optimizer:
    """Optimizer `name` at learning rate reference x `lr_factor`, over the parameters that require gradients.

    Raises:
        InputError: unknown name, or a factor or weight decay out of range.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    if not lr_factor > 0:
        raise InputError(f"lr_factor must be positive, got {lr_factor}")
    if not weight_decay >= 0:
        raise InputError(f"weight_decay must be 0 or more, got {weight_decay}")
    spec = OPTIMIZERS[name]
    thawed = [p for p in parameters if p.requires_grad]
    return spec.build(thawed, lr=spec.reference_rate * lr_factor, weight_decay=weight_decay)
