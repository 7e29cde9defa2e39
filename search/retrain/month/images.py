"""The images of some months as a set of their own, whatever arrives later, and what a network answers on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.array_file import copied_rows
from lightning_modules.errors import InputError
from lightning_modules.images.by_image import ImageAnswers, by_image
from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.images.views import ViewParameters, apply_views
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.penultimate import answer
from search.retrain.months import month_digest

__all__ = ["features", "image_subset", "index_subset", "probabilities", "shown_images"]

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
        return ImageSet(index, images.pixels, images.resolution, images.tiling)
    source = images.pixels
    origin = str(source.filename) if isinstance(source, np.memmap) else index.digest
    key = hashlib.blake2b(origin.encode("utf-8", "surrogateescape") + rows.tobytes(), digest_size=12).hexdigest()
    shown, _ = images.pixel_rows(rows)
    pixels = copied_rows(folder / f"pixels-{key}.npy", source, shown, on_note)
    return ImageSet(index, pixels, images.resolution, images.tiling)


def shown_images(net: BlockNet, images: ImageSet, rows: Rows) -> Iterator[Tensor]:
    """Batches (B, 3, H, W) in [0, 1] of the images at `rows`, without augmentation.

    Of an image in tiles it is the tile that decides what the network answers.
    """
    shown = rows if images.tiling is None else _answers(net, images, rows).deciding
    return _plain(images, shown, net.mean.device)


def _plain(images: ImageSet, shown: Rows, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(shown), _BATCH):
        part = shown[start : start + _BATCH]
        pixels = torch.from_numpy(np.ascontiguousarray(images.pixels[part])).to(device)
        none = torch.zeros(len(part), device=device)
        yield apply_views(pixels, ViewParameters(none.bool(), none, none, none + 1, none, none.long()))


def probabilities(net: BlockNet, images: ImageSet, rows: Rows) -> NDArray[np.float64]:
    """Class probabilities (N, classes) of the images at `rows`; the network is left in eval mode.

    Of images in tiles they are by image (`by_image`).

    Raises:
        InputError: some are not finite.
    """
    if not len(rows):
        return np.zeros((0, 0))
    found = _answers(net, images, rows).logits.double().softmax(1).cpu().numpy()
    if not np.isfinite(found).all():
        raise InputError("a model's answers are not finite; python -m search.retrain rollback names another champion")
    return found


@torch.no_grad()
def features(net: BlockNet, images: ImageSet, rows: Rows) -> NDArray[np.float32]:
    """Penultimate features (N, D) of the images at `rows`; of images in tiles, of the tile that decides."""
    net.eval()
    found = [answer(net, batch).features.float().cpu() for batch in shown_images(net, images, rows)]
    return torch.cat(found).numpy()


@torch.no_grad()
def _answers(net: BlockNet, images: ImageSet, rows: Rows) -> ImageAnswers:
    """Answers on the images at `rows`, in their order; `deciding` are rows of the pixels."""
    net.eval()
    shown, place = images.pixel_rows(rows)
    logits = torch.cat([net(batch) for batch in _plain(images, shown, net.mean.device)])
    if images.tiling is None:
        return ImageAnswers(place, logits, shown)
    found = by_image(logits, place, images.tiling.normal_position(images.index.classes))
    return replace(found, deciding=shown[found.deciding])
