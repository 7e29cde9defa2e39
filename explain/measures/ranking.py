"""The order in which a map would have pixels removed."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.attribution import upsample
from explain.measures.measure import checked_maps, share_of_max

__all__ = ["pixel_ranks"]


def pixel_ranks(maps: Tensor, size: tuple[int, int], seed: int) -> Tensor:
    """Rank of every pixel by its up-sampled map, 0 the most relevant.

    Ties, such as the zeros of a rectified map, are broken at random, so that no corner of the image is favoured.

    Args:
        maps: Non-negative, (N, h, w).
        size: Height and width H, W of the images in pixels.
        seed: Decides the ties.

    Returns:
        int64, (N, H W), each row a permutation of 0 .. H W - 1.
    """
    flat = upsample(share_of_max(checked_maps(maps)), size).flatten(1).cpu()
    generator = torch.Generator().manual_seed(seed)
    shuffle = torch.stack([torch.randperm(flat.shape[1], generator=generator) for _ in range(len(flat))])
    order = shuffle.gather(1, flat.gather(1, shuffle).argsort(dim=1, descending=True, stable=True))
    return torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1]).expand_as(order))
