"""Reads images for a look: all files as far as the time goes, in an order in which a part stands for all."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_modules.errors import InputError, Problem, printable
from lightning_modules.images.decoding import content_digest, pixel_digest, stream
from lightning_modules.images.index import ImageIndex, build_index
from lightning_modules.images.listing import ListedImage
from lightning_modules.images.reading import decode_image, header_size, read_bytes
from lightning_modules.images.resolution import Resolution
from lightning_modules.images.splits import Splits
from search.settings.schema import Settings
from search.trial.resolution import before_images, choose_resolution, is_open
from search.trial.splitting import listed, split

__all__ = ["Survey", "has_gpu", "survey"]

_SECONDS = 7.0  # of reading; a quarter of it is for headers alone where not all can be decoded


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found.

    Attributes:
        index: the images that can be used, and what cannot with reasons; `record.size` where the file was read.
        files: that are listed.
        read: of these, whose header was read.
        decoded: of these, whose pixels were.
        splits: how the settings split them; None where they cannot be split.
        refusal: why they cannot; empty where they can.
        resolution: what the images are brought to.
    """

    index: ImageIndex
    files: int
    read: int
    decoded: int
    splits: Splits | None
    refusal: str
    resolution: Resolution


def survey(settings: Settings, seconds: float = _SECONDS) -> Survey:
    """List, read and check the images that the settings name.

    Args:
        seconds: that reading may take, about.

    Raises:
        InputError: the folder or table cannot be read as settings say.
        BadImages: fewer than two classes are left.
    """
    data = settings.data
    listing = listed(data)
    order = list(range(len(listing.images)))
    random.Random(0).shuffle(order)  # nosec B311 - a sample, no secret
    started = time.monotonic()
    contents: dict[int, str | Problem] = {}
    sizes: dict[int, tuple[int, int]] = {}

    def header(place: int) -> tuple[int, str | Problem, tuple[int, int] | None]:
        path = listing.images[place].path
        try:
            found = read_bytes(path, max_pixels=data.max_pixels)
        except InputError as error:
            return place, Problem(printable(path), str(error)), None
        return place, content_digest(found), header_size(found)

    def pixels(place: int) -> tuple[int, str | Problem, tuple[int, int] | None]:
        path = listing.images[place].path
        try:
            found = decode_image(read_bytes(path, max_pixels=data.max_pixels), max_pixels=data.max_pixels)
        except InputError as error:
            return place, Problem(printable(path), str(error)), None
        return place, pixel_digest(found), (found.shape[0], found.shape[1])

    decoded: dict[int, str | Problem] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for work, into, limit in ((header, contents, 0.25 * seconds), (pixels, decoded, seconds)):
            for place, found, size in stream(work, _while(order, started + limit)):
                into[place] = found
                if size is not None:
                    sizes[place] = size
    whole = len(decoded) == len(order)
    # Copies are told by their pixels, or where not all were decoded by their bytes; what was not read has no copy.
    known = decoded if whole else contents | {k: one for k, one in decoded.items() if isinstance(one, Problem)}
    images = [_sized(image, sizes.get(place)) for place, image in enumerate(listing.images)]
    index, _ = build_index(
        replace(listing, images=images),
        [known.get(place, f"unread {place}") for place in range(len(images))],
        on_bad="set_aside",
        min_per_class=data.min_per_class,
    )
    try:
        splits, refusal = split(settings, index), ""
    except InputError as error:
        splits, refusal = None, str(error)
    resolution = before_images(settings)
    if is_open(settings):
        folds = None if splits is None else [fold.train for fold in splits.folds]
        resolution = choose_resolution(settings, index, folds, gpu=has_gpu())
    return Survey(index, len(images), len(contents), len(decoded), splits, refusal, resolution)


def has_gpu() -> bool:
    """Whether the machine has a GPU of NVIDIA, without asking torch."""
    return Path("/dev/nvidia0").exists()


def _sized(image: ListedImage, size: tuple[int, int] | None) -> ListedImage:
    return image if size is None else replace(image, size=size)


def _while(order: Sequence[int], end: float) -> Iterator[int]:
    """The places until that time; at least one."""
    for number, place in enumerate(order):
        if number and time.monotonic() > end:
            return
        yield place
