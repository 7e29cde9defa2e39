"""E2, CAM stability: does training the block change where it looks?"""

from __future__ import annotations

from explain.evidence.map_correlation import matched_reading
from explain.evidence.material import Maps, Material
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading

__all__ = ["CAM_STABILITY", "cam_stability"]


def cam_stability(material: Material, *, maps: Maps = "cam", draws: int = 200, seed: int = 0) -> Reading:
    """f_l = mean over validation images of Pearson(map before, map after a short probe fine-tuning of everything).

    With CAM maps the gradients that weigh a block come from the blocks behind it, so a block that did not change can
    score below 1 where those did; with `maps="control"` it scores 1.

    Source: own definition. Range: [-1, 1]. Sign: +; where the map stays as it was, training the block changes nothing:
    freeze it. It rises with depth by itself, since deep maps have few cells: read it against its null.
    Null: the map before of one image with the map after of another.
    Cost: the probe fine-tuning, and one forward + backward of all images through each network.

    Args:
        material: With "after".
        maps: "cam", or "control" for mean |A|.
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L,). Images with a dead or constant map are left out; NaN for a block where that leaves none, as where
        maps have a single cell.
    """
    chosen = ~material.training
    records = zip(material.before.records, material.fine_tuned("after").records, strict=True)
    pairs = (
        (name, before.maps(maps)[chosen], after.maps(maps)[chosen])
        for name, (before, after) in zip(material.blocks, records, strict=True)
    )
    return matched_reading(pairs, sign=1, undefined="are dead or constant", draws=draws, seed=seed)


CAM_STABILITY = Scorer("cam_stability", "block", cam_stability, needs=("before", "after"))
