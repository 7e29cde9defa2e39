"""From images and their splits to tiles and theirs: what a network that sees tiles is trained on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lightning_modules.images.index import ImageIndex, ImageRecord, Tiles
from lightning_modules.images.split_units import Rows
from lightning_modules.images.splits import Fold, Splits
from lightning_modules.images.store import ImageSet
from lightning_modules.images.tiling import Tiling

__all__ = ["tile_rows"]


def tile_rows(images: ImageSet, splits: Splits, defect: float) -> tuple[ImageSet, Splits]:
    """A set whose rows are the tiles of all images, in their order, and the splits of the images in rows of it.

    All tiles of an image are on one side of every split, since images are. A tile of an image with a mask is of the
    normal class where it shows no pixel of the mask. It has the image's class where the mask covers at least a share
    `defect` of it, or more than of any other tile of the image, so that no image is left without one. What lies between
    is not trained on. Every other tile has its image's class.

    Args:
        images: cut into tiles; as they are where `tiling` is None.
        defect: share of a tile, above 0.

    Raises:
        InputError: no image is of the normal class.
    """
    if images.tiling is None:
        return images, splits
    records, boxes, trainable = [], [], []
    normal = images.tiling.normal_position(images.index.classes)
    for record in images.index.records:
        if record.size is None:
            raise ValueError(f"the size of {record.path} must be known to cut it")
        own = images.tiling.boxes(record.size)
        shows, clear = _shows_defect(record, images.tiling, defect, len(own))
        boxes.append(own)
        trainable.append(clear)
        for box, seen in zip(own.tolist(), shows.tolist(), strict=True):
            label = record.label if seen or images.tiling.normal is None else images.tiling.normal
            # Views go by the digest: each tile has its own.
            digest = hashlib.blake2b(f"{record.digest} {box}".encode(), digest_size=16).hexdigest()
            records.append(replace(record, label=label, digest=digest, defect=None))
    starts = images.starts
    image = np.repeat(np.arange(len(starts) - 1, dtype=np.int64), np.diff(starts))
    tiles = Tiles(images.index, image, np.concatenate(boxes), np.concatenate(trainable), normal)
    index = replace(images.index, records=tuple(records), tiles=tiles)
    index = replace(index, digest=_digest(index, tiles))

    def of(rows: Rows) -> Rows:
        return images.pixel_rows(rows)[0]

    folds = tuple(Fold(_trainable(tiles, of(fold.train)), of(fold.val)) for fold in splits.folds)
    parted = hashlib.blake2b(f"{splits.digest} {index.digest}".encode(), digest_size=16).hexdigest()
    splits = replace(splits, folds=folds, test=of(splits.test), digest=parted)
    return ImageSet(index, images.pixels, images.resolution), splits


def _trainable(tiles: Tiles, rows: Rows) -> Rows:
    return rows[tiles.trainable[rows]]


def _shows_defect(
    record: ImageRecord, tiling: Tiling, share: float, count: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tiles of an image have its class, and which are clear enough to train on; (T,) each."""
    if record.defect is None:
        return np.ones(count, np.bool_), np.ones(count, np.bool_)
    pixels = np.array(record.defect)
    enough = (pixels >= share * tiling.side[0] * tiling.side[1]) | (pixels == pixels.max())
    return pixels > 0, enough | (pixels == 0)


def _digest(index: ImageIndex, tiles: Tiles) -> str:
    """Of the images, where they were cut, what each tile is called and which of them are trained on."""
    found = hashlib.blake2b(tiles.images.digest.encode(), digest_size=16)
    for array in (tiles.boxes, index.labels, tiles.trainable):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
