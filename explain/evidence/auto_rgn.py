"""Auto-RGN: how strongly does the loss pull at the block's weights?"""

from __future__ import annotations

import numpy as np

from explain.evidence.material import Material
from explain.evidence.null import mean_and_spread
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading

__all__ = ["AUTO_RGN", "auto_rgn"]


def auto_rgn(material: Material) -> Reading:
    """f_l = -||g_l|| / ||theta_l||, over all parameters of the block together.

    g is the gradient of the mean cross-entropy of the training images, all at once, in eval mode, at the pre-trained
    blocks with a fitted head. The paper averages the norms of five batches, each tensor by itself; the gradient of
    everything at once has less noise and does not depend on the batch size.

    Source: Lee et al. 2022, surgical fine-tuning, arXiv 2210.11466. Range: (-inf, 0].
    Sign: -; the paper trains most where the relative gradient is largest, so a small one speaks for freezing.
    Null: permuted labels. They pull harder than true ones wherever the head fits the training images.
    Cost: one forward and 1 + P backward passes of the training images.

    Args:
        material: With "gradients"; its P is the number of draws of the null.

    Returns:
        Values (L,). NaN for a block without parameters; no null for P = 0, no spread for P = 1.
    """
    if material.gradients is None:
        raise ValueError("auto_rgn needs 'gradients', which were not gathered")
    ratios = -material.gradients.numpy()
    null = np.array([mean_and_spread(column) for column in ratios[1:].T]).reshape(-1, 2)
    without = [name for name, value in zip(material.blocks, ratios[0], strict=True) if not np.isfinite(value)]
    notes = tuple(f"block {name}: no weights, or a gradient that is not finite" for name in without)
    values = np.where(np.isfinite(ratios[0]), ratios[0], np.nan)
    return Reading(values, null[:, 0], null[:, 1], notes)


AUTO_RGN = Scorer("auto_rgn", "block", auto_rgn, needs=("gradients",))
