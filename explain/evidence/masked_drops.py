"""Average Drop of images seen through their maps, and through the same maps with the cells shuffled."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from explain.evidence.material import Maps, Pass
from explain.hooks import frozen_in_eval_mode
from explain.measures.faithfulness import drop_from
from explain.measures.masking import masked_images
from explain.measures.measure import dead

__all__ = ["masked_drops", "shuffled_cells"]


def shuffled_cells(maps: Tensor, images: list[int], *, seed: int) -> Tensor:
    """The maps with their cells in random order, the values of each map kept.

    Args:
        maps: (N, h, w).
        images: N numbers that identify the images: an image's order depends on its number and the seed alone, not on
            the batch it came in.

    Returns:
        (N, h, w).
    """
    cells = maps.shape[1] * maps.shape[2]
    orders = []
    for image in images:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + image)
        orders.append(torch.randperm(cells, generator=generator))
    order = torch.stack(orders).to(maps.device)
    return maps.flatten(1).gather(1, order).view_as(maps)


def masked_drops(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    chosen: Tensor,
    seen: Pass,
    which: Maps,
    *,
    shuffles: int,
    batch_size: int,
    seed: int,
) -> tuple[Tensor, int]:
    """max(0, Y - Y_E) / Y of the chosen images through their maps and through shuffled ones.

    Args:
        model: Network from images to logits; run in eval mode, left as it was.
        images: (N, C, H, W).
        labels: True classes, (N,).
        chosen: Which V images, bool, (N,).
        seen: The network's pass over all images; its maps are used, and its logits for Y.
        which: "cam" or "control".
        shuffles: R >= 1.

    Returns:
        Drops, float64, (L, 1 + R, V), the map's own first, NaN for a dead map, and for maps of a single cell, which
        cannot be shuffled; and how many images went forward.
    """
    numbers = chosen.nonzero()[:, 0]
    device = next((parameter.device for parameter in model.parameters()), images.device)
    before = seen.logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0]
    drops = torch.full((len(seen.records), 1 + shuffles, len(numbers)), math.nan, dtype=torch.float64)
    forward = 0
    with frozen_in_eval_mode(model), torch.inference_mode():
        for place, record in enumerate(seen.records):
            maps = record.maps(which)
            if maps.shape[1] * maps.shape[2] == 1:
                continue
            alive = (~dead(maps[numbers])).nonzero()[:, 0]
            for start in range(0, len(alive), batch_size):
                columns = alive[start : start + batch_size]
                index = numbers[columns]
                batch, targets = images[index.to(images.device)].to(device), labels[index]
                for shuffle in range(1 + shuffles):
                    shown = maps[index]
                    if shuffle:
                        # One stream of seeds for each block and shuffle, so that none shares its order with another.
                        stream = (seed * len(seen.records) + place) * (shuffles + 1) + shuffle
                        shown = shuffled_cells(shown, index.tolist(), seed=stream)
                    logits = model(masked_images(shown.to(device), batch)).double().cpu()
                    after = logits.softmax(dim=1).gather(1, targets[:, None])[:, 0]
                    drops[place, shuffle, columns] = drop_from(before[index], after)
                    forward += len(index)
    return drops, forward
