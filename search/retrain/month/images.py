"""The images of some months as a set of their own, whatever arrives later, and what a network answers on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.array_file import copied_rows
from lightning_modules.errors import InputError
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.images.views import ViewParameters, apply_views
from lightning_modules.networks.blocknet import BlockNet
from search.retrain.months import month_digest

__all__ = ["image_subset", "index_subset", "plain_images", "probabilities"]

_BATCH = 64


def index_subset(index: ImageIndex, rows: Rows, classes: tuple[str, ...]) -> ImageIndex:
    """Some rows of an index, ascending, with the classes that a network knows: sorted, every label among them."""
    records = tuple(index.records[row] for row in rows.tolist())
    return ImageIndex(records, classes, (), (), month_digest(records), index.value_range)


def image_subset(
    images: ImageSet, rows: Rows, classes: tuple[str, ...], folder: Path, on_note: Callable[[str], None]
) -> ImageSet:
    """The images of `index_subset`, their pixels mapped from a file in `folder` unless they are all of the set's.

    Args:
        on_note: see `copied_rows`.

    Raises:
        OSError: the file cannot be written.
    """
    index = index_subset(images.index, rows, classes)
    if len(rows) == len(images.index.records):
        return ImageSet(index, images.pixels, images.resolution)
    source = images.pixels
    origin = str(source.filename) if isinstance(source, np.memmap) else index.digest
    key = hashlib.blake2b(origin.encode("utf-8", "surrogateescape") + rows.tobytes(), digest_size=12).hexdigest()
    return ImageSet(index, copied_rows(folder / f"pixels-{key}.npy", source, rows, on_note), images.resolution)


def plain_images(images: ImageSet, rows: Rows, device: torch.device) -> Iterator[Tensor]:
    """Batches (B, 3, H, W) in [0, 1] of the images at `rows`, without augmentation."""
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        pixels = torch.from_numpy(np.ascontiguousarray(images.pixels[part])).to(device)
        none = torch.zeros(len(part), device=device)
        yield apply_views(pixels, ViewParameters(none.bool(), none, none, none + 1, none, none.long()))


@torch.no_grad()
def probabilities(net: BlockNet, images: ImageSet, rows: Rows) -> NDArray[np.float64]:
    """Class probabilities (N, classes) of the images at `rows`; the network is left in eval mode.

    Raises:
        InputError: some are not finite.
    """
    net.eval()
    parts = [net(batch).double().softmax(1).cpu().numpy() for batch in plain_images(images, rows, net.mean.device)]
    if not all(np.isfinite(part).all() for part in parts):
        raise InputError("a model's answers are not finite; python -m search.retrain rollback names another champion")
    return np.concatenate(parts) if parts else np.zeros((0, 0))
