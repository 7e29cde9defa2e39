"""E4, agreement of change: do two fine-tunings change the block's maps in the same way?"""

from __future__ import annotations

from torch import Tensor

from explain.evidence.map_correlation import matched_reading
from explain.evidence.material import BlockRecord, Maps, Material
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Reading
from explain.measures.measure import dead, share_of_sum

__all__ = ["AGREEMENT_OF_CHANGE", "agreement_of_change"]


def agreement_of_change(material: Material, *, maps: Maps = "cam", draws: int = 200, seed: int = 0) -> Reading:
    """f_l = -mean over validation images of Pearson(M1 - M0, M2 - M0), each map divided by its sum.

    M0 is the map before, M1 and M2 are those after two short probe fine-tunings that differ in their seed only.

    Source: own definition. Range: [-1, 1]. Sign: -; change on which two seeds agree is learning, so thaw the block;
    change on which they do not agree is noise, so freeze it.
    Null: the change of one image with the change of another.
    Cost: two probe fine-tunings, and one forward + backward of all images through each of three networks.

    Args:
        material: With "after" and "again".
        maps: "cam", or "control" for mean |A|.
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L,). Images with a dead map, or a map that did not change at all, are left out; NaN for a block where
        that leaves none (a block without any change has nothing to agree on).
    """
    chosen = ~material.training
    passes = (material.before, material.fine_tuned("after"), material.fine_tuned("again"))
    pairs = []
    for name, *records in zip(material.blocks, *(one.records for one in passes), strict=True):
        before, after, again = (_shares(record, maps, chosen) for record in records)
        pairs.append((name, after - before, again - before))
    return matched_reading(pairs, sign=-1, undefined="are dead or did not change", draws=draws, seed=seed)


def _shares(record: BlockRecord, which: Maps, chosen: Tensor) -> Tensor:
    """M / sum M of the chosen images, float64, (V, h, w); NaN for a dead map."""
    shown = record.maps(which)[chosen].double()
    return share_of_sum(shown).masked_fill(dead(shown)[:, None, None], float("nan"))


AGREEMENT_OF_CHANGE = Scorer("agreement_of_change", "block", agreement_of_change, needs=("before", "after", "again"))
