"""The settings of the thesis's experiments (conf/experiment/thesis_*.yaml; docs/experiments.md)."""

from __future__ import annotations

from dataclasses import dataclass

from search.settings.field import setting

__all__ = ["PARTS", "ThesisSettings"]

PARTS = ("lenet", "random", "transfer", "finetune", "rates")


@dataclass(frozen=True)
class ThesisSettings:
    """Which of the thesis's experiments is run, with protocol=thesis."""

    part: str | None = setting(
        None,
        "lenet: LeNet-5, tanh with SGD and ReLU with Adam; random: the network from random weights with every "
        "optimizer; transfer: the pre-trained one at every freeze depth with every optimizer; finetune: all of the "
        "best of those, at a very low rate; rates: every optimizer at the same learning rates; null: none",
        choices=PARTS,
        identity=False,
    )
    rates: tuple[float, ...] = setting(
        (1e-4, 1e-3, 1e-2, 1e-1),
        "learning rates that every optimizer is given alike (thesis.part=rates)",
        above=0,
        high=1e3,
        identity=False,
    )
    maps: int = setting(
        1,
        "images of each class whose LIME, CAM and Grad-CAM are drawn at the end (thesis.part=finetune); 0 draws none",
        unit="images",
        low=0,
        high=20,
        identity=False,
    )
