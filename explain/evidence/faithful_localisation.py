"""E1, faithful localisation: does what the block looks at carry the decision?"""

from __future__ import annotations

import numpy as np

from explain.evidence.material import Maps, Material
from explain.evidence.null import finite_mean, mean_and_spread
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading
from explain.measures.measure import check_integer

__all__ = ["FAITHFUL_LOCALISATION", "FAITHFUL_LOCALISATION_CONTROL", "control_localisation", "faithful_localisation"]


def faithful_localisation(material: Material, *, draws: int = 200, seed: int = 0) -> Reading:
    """f_l = AvgDrop(cell-shuffled map) - AvgDrop(map), mean over validation images.

    A map is faithful if the class survives where only the map's part of the image is shown. The same map with its cells
    shuffled has the same values, the same resolution and the same blur from up-sampling, but shows other places.

    Source: own definition on the Average Drop of Chattopadhyay et al. 2018, arXiv 1710.11063.
    Range: [-1, 1]. Sign: +; where the block still catches the object's shape on images it has not seen, it can be
    reused as it is: freeze it.
    Null: each image's own map changes places with one of its R shuffled ones at random; mean 0 by symmetry.
    Cost: one pass for the maps, and L (1 + R) forward passes of the validation images.

    Args:
        material: With "drops/cam".
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L,). NaN for a block whose maps are all dead or have a single cell, which cannot be shuffled.
    """
    return _read(material, "cam", draws, seed)


def control_localisation(material: Material, *, draws: int = 200, seed: int = 0) -> Reading:
    """The same with the gradient-free control, the mean of |A| over channels, in the place of the CAM map.

    If it scores as well as E1, gradients add nothing. Formula, range, sign, null and options as in
    `faithful_localisation`; needs "drops/control".
    """
    return _read(material, "control", draws, seed)


def _read(material: Material, which: Maps, draws: int, seed: int) -> Reading:
    rng = np.random.default_rng(seed)
    check_integer("draws", draws, 2)
    rows = []
    notes = []
    for name, of_block in zip(material.blocks, material.drops[which].numpy(), strict=True):
        drops = of_block[:, np.isfinite(of_block).all(axis=0)]  # (1 + R, images)
        shuffles, images = len(drops) - 1, drops.shape[1]
        if images < of_block.shape[1]:
            notes.append(f"block {name}: {of_block.shape[1] - images} of {of_block.shape[1]} maps cannot be shuffled")
        gain = (drops.sum(axis=0) - (shuffles + 1) * drops) / shuffles  # as if each of the 1 + R were the map itself
        chosen = rng.integers(0, shuffles + 1, size=(draws, images))
        null = finite_mean(gain[chosen, np.arange(images)])
        rows.append((float(finite_mean(gain[0])), *mean_and_spread(null)))
    values, mean, spread = np.array(rows).T
    return Reading(values, mean, spread, tuple(notes))


_FORMULA = "mean over validation images of AvgDrop(cell-shuffled map) - AvgDrop(map)"

FAITHFUL_LOCALISATION = Scorer("faithful_localisation", "block", faithful_localisation, needs=("before", "drops/cam"))

FAITHFUL_LOCALISATION_CONTROL = Scorer(
    "faithful_localisation_control", "block", control_localisation, needs=("before", "drops/control")
)
