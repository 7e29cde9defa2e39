"""Where the evidence for a wrong class lies: mistaken images against correct ones of the same class.

Of both groups the map of the *wrong* class is looked at, upsampled to the image. Each map is reduced to six numbers
(`TRAITS`); a permutation test asks whether mistaken and correct images differ in their means, two-sided, corrected for
the six by Holm. It finds associations with place, brightness, texture and extent, and no others: one with a shape or a
colour shows in the pictures only. Maps of a last block have few positions, so that "at the border" is a matter of
large parts of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explain.attribution import upsample
from explain.measures import MAP_MEASURES
from search.report.findings import Trait
from search.significance import holm

__all__ = ["FEWEST_CORRECT", "FEWEST_MISTAKEN", "TRAITS", "compare_traits", "map_traits"]

TRAITS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "height": ("higher up", "lower down"),
        "side": ("further left", "further right"),
        "border": ("further from the border", "nearer to the border"),
        "brightness": ("on darker parts", "on brighter parts"),
        "texture": ("on smoother parts", "on parts with more texture"),
        "extent": ("in a smaller area", "spread over a larger area"),
    }
)
"""Trait -> what it says of mistaken images where it is smaller, and where it is larger, than in correct ones."""

FEWEST_MISTAKEN, FEWEST_CORRECT = 3, 5
"""Images that a comparison needs at least."""

_BORDER = 0.2  # share of the side
_PERMUTATIONS = 4999


def map_traits(images: Tensor, maps: Tensor) -> NDArray[np.float64]:
    """The six numbers of each map, in the order of `TRAITS`; a row of NaN for a map that is zero everywhere.

    height and side: centre of mass, 0 top or left, 1 bottom or right. border: share of the map in the outer fifth of
    the image at any side. brightness: mean grey value under the map minus that of the image. texture: mean gradient of
    the grey values under the map over that of the image. extent: normalised entropy of the map.

    Args:
        images: (N, 3, H, W) in [0, 1].
        maps: non-negative, (N, h, w).

    Returns:
        (N, 6).
    """
    height, width = images.shape[2:]
    shown = upsample(maps.double(), (height, width))
    total = shown.sum(dim=(1, 2))
    share = shown / total.clamp_min(1e-300)[:, None, None]
    y, x = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (height, width))
    inside = ((y > _BORDER) & (y < 1 - _BORDER))[:, None] & ((x > _BORDER) & (x < 1 - _BORDER))[None]
    grey = images.double().mean(dim=1)
    slope = torch.zeros_like(grey)
    slope[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    slope[:, :, 1:] += (grey[:, :, 1:] - grey[:, :, :-1]).abs()
    columns = (
        (share * y[:, None]).sum(dim=(1, 2)),
        (share * x[None]).sum(dim=(1, 2)),
        (share * ~inside).sum(dim=(1, 2)),
        (share * grey).sum(dim=(1, 2)) - grey.mean(dim=(1, 2)),
        (share * slope).sum(dim=(1, 2)) / slope.mean(dim=(1, 2)).clamp_min(1e-12),
        MAP_MEASURES["ce_normalised"](maps),
    )
    found: NDArray[np.float64] = torch.stack(columns, dim=1).numpy()
    found[total.numpy() == 0] = np.nan
    return found


def compare_traits(mistaken: NDArray[np.float64], correct: NDArray[np.float64], *, seed: int) -> tuple[Trait, ...]:
    """How the traits of mistaken images differ from those of correct ones, the most different first.

    Args:
        mistaken: (N, 6), without NaN.
        correct: (M, 6), without NaN.

    Returns:
        Nothing with fewer than 3 mistaken or 5 correct images.
    """
    if len(mistaken) < FEWEST_MISTAKEN or len(correct) < FEWEST_CORRECT:
        return ()
    both = np.concatenate([mistaken, correct])
    seen = mistaken.mean(0) - correct.mean(0)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(len(both)), (_PERMUTATIONS, 1)), axis=1)
    weights = np.zeros((_PERMUTATIONS, len(both)))
    np.put_along_axis(weights, order[:, : len(mistaken)], 1 / len(mistaken), axis=1)
    weights[weights == 0] = -1 / len(correct)
    # Rounding must not make a permutation that is the same split look smaller.
    extreme = np.abs(weights @ both) >= np.abs(seen) * (1 - 1e-9) - 1e-15
    p_values = holm((1 + extreme.sum(0)) / (1 + _PERMUTATIONS))
    spread = correct.std(0, ddof=1)
    traits = [
        Trait(
            name,
            float(mistaken[:, k].mean()),
            float(correct[:, k].mean()),
            float(seen[k] / spread[k]) if spread[k] > 1e-9 else None,
            p_values[k],
        )
        for k, name in enumerate(TRAITS)
    ]
    return tuple(sorted(traits, key=lambda t: (t.p_value, -abs(t.difference or 0.0))))
