"""CKA: does training the block change what it says, gradients and maps aside?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explain.evidence.material import Material
from explain.evidence.null import mean_and_spread
from explain.evidence.scorer import Scorer
from explain.evidence.scores import Numbers, Reading
from explain.measures.measure import check_integer

__all__ = ["CKA", "cka", "linear_cka"]


def linear_cka(one: Numbers, other: Numbers, orders: NDArray[np.int64] | None = None) -> Numbers:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X^T and L = Y Y^T of the centred features.

    Equal to ||Y^T X||^2 / (||X^T X|| ||Y^T Y||) in Frobenius norms. With fewer images than features it is biased
    upwards.

    Args:
        one: X, finite, (n, C).
        other: Y, finite, (n, C').
        orders: Orders of the rows of Y, (D, n); None leaves them as they are (D = 1).

    Returns:
        Values in [0, 1], (D,); NaN where one of the two is constant over the images.
    """
    grams = []
    for features in (one, other):
        # Scaling first keeps the fourth powers of tiny and huge features finite; CKA does not depend on it.
        centred = features - features.mean(axis=0)
        largest = float(np.abs(centred).max())
        if largest <= 1e-12 * float(np.abs(features).max()):
            return np.full(1 if orders is None else len(orders), np.nan)
        centred = centred / largest
        gram = centred @ centred.T
        grams.append(gram / np.linalg.norm(gram))
    if orders is None:
        return np.array([np.clip(np.sum(grams[0] * grams[1]), 0, 1)])
    return np.array([np.clip(np.sum(grams[0] * grams[1][np.ix_(order, order)]), 0, 1) for order in orders])


def cka(material: Material, *, draws: int = 200, seed: int = 0) -> Reading:
    """f_l = linear CKA of the pooled features of the validation images before and after the probe fine-tuning.

    Source: Kornblith et al. 2019, arXiv 1905.00414. Range: [0, 1].
    Sign: +; where the features stay as they were, up to rotation and one scale, training the block changes nothing:
    freeze it. It is E2 without maps: if it does as well, the maps add nothing.
    Null: features before of one image with features after of another (a random order). Well above 0 where the images
    are fewer than the features.
    Cost: the probe fine-tuning, and one forward pass of all images through each network.

    Args:
        material: With "after".
        draws: How often the null is drawn, >= 2.

    Returns:
        Values (L,). NaN where features are not finite or do not differ between images, as with one validation image.
    """
    check_integer("draws", draws, 2)
    rng = np.random.default_rng(seed)
    chosen = ~material.training
    images = int(chosen.sum())
    orders = np.stack([rng.permutation(images) for _ in range(draws)])
    orders = np.vstack([np.arange(images), orders])
    rows = np.full((3, len(material.blocks)), np.nan)
    notes = []
    pairs = zip(material.before.records, material.fine_tuned("after").records, strict=True)
    for place, (before, after) in enumerate(pairs):
        one, other = (record.features[chosen].double().numpy() for record in (before, after))
        found = linear_cka(one, other, orders) if np.isfinite(one).all() and np.isfinite(other).all() else None
        if found is None or not np.isfinite(found).all():
            notes.append(f"block {material.blocks[place]}: features are not finite or do not differ between images")
            continue
        rows[:, place] = (found[0], *mean_and_spread(found[1:]))
    return Reading(rows[0], rows[1], rows[2], tuple(notes))


CKA = Scorer("cka", "block", cka, needs=("before", "after"))
