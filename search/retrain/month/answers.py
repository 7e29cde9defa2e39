"""What a network answers on plain images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.images.views import ViewParameters, apply_views
from lightning_modules.networks.blocknet import BlockNet

__all__ = ["plain_images", "probabilities"]

_BATCH = 64


def plain_images(images: ImageSet, rows: Rows, device: torch.device) -> Iterator[Tensor]:
    """Batches (B, 3, H, W) in [0, 1] of the images at `rows`, without augmentation."""
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        pixels = torch.from_numpy(np.ascontiguousarray(images.pixels[part])).to(device)
        none = torch.zeros(len(part), device=device)
        yield apply_views(pixels, ViewParameters(none.bool(), none, none, none + 1, none))


@torch.no_grad()
def probabilities(net: BlockNet, images: ImageSet, rows: Rows) -> NDArray[np.float64]:
    """Class probabilities (N, classes) of the images at `rows`; the network is left in eval mode."""
    net.eval()
    parts = [net(batch).double().softmax(1).cpu().numpy() for batch in plain_images(images, rows, net.mean.device)]
    return np.concatenate(parts) if parts else np.zeros((0, 0))
