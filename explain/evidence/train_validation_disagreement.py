"""E3, train/validation disagreement: does the block look differently at images it was trained on?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explain.evidence.material import Maps, Material
from explain.evidence.null import finite_mean, mean_and_spread, permutations_within
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Numbers, Reading
from explain.measures.concentration import elliptical_area, entropy
from explain.measures.measure import check_integer

__all__ = ["TRAIN_VALIDATION_DISAGREEMENT", "kolmogorov_smirnov", "train_validation_disagreement"]


def kolmogorov_smirnov(values: Numbers, members: NDArray[np.bool_]) -> Numbers:
    """Largest distance between the distribution functions of members and others, for several memberships at once.

    Args:
        values: Finite, (n,); ties may occur.
        members: (D, n); each row has at least one member and one other.

    Returns:
        Distances in [0, 1], (D,).
    """
    order = np.argsort(values, kind="stable")
    last_of_ties = np.append(np.diff(values[order]) > 0, True)
    inside = members[:, order].astype(np.float64)
    outside = 1 - inside
    gap = np.cumsum(inside, axis=1) / inside.sum(axis=1, keepdims=True)
    gap -= np.cumsum(outside, axis=1) / outside.sum(axis=1, keepdims=True)
    return np.asarray(np.abs(gap[:, last_of_ties]).max(axis=1), dtype=np.float64)


def train_validation_disagreement(
    material: Material, *, maps: Maps = "cam", draws: int = 200, seed: int = 0
) -> Reading:
    """f_l = (KS of ce + KS of ca) / 2 between training and validation images, after the probe fine-tuning.

    ce is the entropy of a map, ca its elliptical area; KS is the largest distance between two distribution functions.
    It depends on ranks alone, so the resolution of the maps does not enter.

    Source: own definition, after the thesis's reading of ce and ca (Schoettl 2020, arXiv 2009.12546). Range: [0, 1].
    Sign: +, fixed before any result was seen. Two readings are possible: (a) the block has memorised its training
    images, so freeze it (regularise); (b) its features do not carry over to new images, so thaw it. It is (a) that
    this quantity can see. On a frozen backbone, training and validation images are exchangeable whatever the block
    is worth, so the distance is at its null; a distance beyond it was made by the training of these blocks, and
    freezing undoes exactly that. Under (b) it would already be there before the training. So disagreement counts for
    freezing.
    A caution: a map's gradients come from the blocks behind it and from the head, so what those memorised shows
    here too.
    Null: membership permuted within each class. Not 0: with few images two halves of one set differ too.
    Cost: the probe fine-tuning, and one forward + backward of all images through its result.

    Args:
        material: With "after".
        maps: "cam", or "control" for mean |A|.
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L,). Images with a dead map are left out; NaN where that leaves no training or no validation image, and
        for maps of a single cell.
    """
    rng = np.random.default_rng(seed)
    check_integer("draws", draws, 2)
    labels, training = material.labels.numpy(), material.training.numpy()
    rows, notes = [], []
    for name, record in zip(material.blocks, material.fine_tuned("after").records, strict=True):
        shown = record.maps(maps)
        ce, ca = entropy(shown).numpy(), elliptical_area(shown).numpy()
        alive = np.isfinite(ce)
        if not alive.all():
            notes.append(f"block {name}: {int((~alive).sum())} of {len(alive)} maps are dead")
        inside = training[alive]
        if inside.all() or not inside.any() or shown[0].numel() == 1:
            rows.append((np.nan, np.nan, np.nan))
            continue
        members = np.vstack([inside, inside[permutations_within(labels[alive], draws, rng)]])
        # The maps' own rounding must not order values that are equal.
        both = np.stack([kolmogorov_smirnov(np.round(values[alive], 9), members) for values in (ce, ca)])
        mean = finite_mean(both, axis=0)
        rows.append((float(mean[0]), *mean_and_spread(mean[1:])))
    values, null_mean, null_spread = np.array(rows).T
    return Reading(values, null_mean, null_spread, tuple(notes))


TRAIN_VALIDATION_DISAGREEMENT = Scorer(
    "train_validation_disagreement", "block", train_validation_disagreement, needs=("after",)
)
