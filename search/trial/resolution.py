"""`data.size=auto` and `data.fit=auto`: from settings and images to the size and fit that all that follows sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lightning_modules.images.index import ImageIndex
from lightning_modules.images.resolution import FAR_OFF, SMALLEST, Bounds, Resolution, choose_fit, choose_size
from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.images.tiling import Tiling
from lightning_modules.networks.input_sizes import INPUT_SIZES, InputSize
from search.settings.schema import DataSettings, Settings

__all__ = [
    "GPU_FACTOR",
    "as_model",
    "before_images",
    "choose_resolution",
    "is_open",
    "largest_size",
    "native_size",
    "resolved",
]

GPU_FACTOR = 32
"""How much more an epoch may train on a GPU: 10,000 images at 224 x 224 with the default limit.

A GPU of any kind trains far more than that many times what two cores do; a fixed number keeps the choice repeatable.
"""

_WORTH_SAYING = 1.05  # the least deformation that the line mentions


def is_open(settings: Settings) -> bool:
    """Whether size or fit are still to be chosen."""
    return settings.data.size == "auto" or settings.data.fit == "auto"


def native_size(settings: Settings) -> int:
    """Side in pixels of the images that the network was made for; the smallest of several networks'."""
    return min(size.native for size in _input_sizes(settings))


def _input_sizes(settings: Settings) -> list[InputSize]:
    model = settings.model
    return [_input_size(model.architecture_of(name)) for name in model.names]


def _input_size(name: str) -> InputSize:
    if (known := INPUT_SIZES.get(name)) is not None:
        return known
    from lightning_modules.networks import backbones  # torch, which a look at images does without

    entry = backbones.registered(name)
    return InputSize(entry.minimum_size, entry.native_size)


def largest_size(settings: Settings) -> tuple[int, int]:
    """The size given, or the largest that can be chosen."""
    size = settings.data.size
    return (max(SMALLEST, native_size(settings)),) * 2 if isinstance(size, str) else size


def resolved(settings: Settings, images: ImageSet) -> Settings:
    """The settings with the size and fit that these images were brought to."""
    found = images.resolution
    if found is None or not is_open(settings):
        return settings
    return replace(settings, data=replace(_without_limit(settings.data), size=found.size, fit=found.fit))


def as_model(settings: Settings, size: tuple[int, int], fit: str) -> Settings:
    """The settings with a model's size and fit where they leave these open."""
    data = settings.data
    chosen = size if data.size == "auto" else data.size
    fit = fit if data.fit == "auto" else data.fit
    return replace(settings, data=replace(_without_limit(data), size=chosen, fit=fit))


def _without_limit(data: DataSettings) -> DataSettings:
    """Nothing is left to choose that the limit could bound, and settings refuse one beside a given size."""
    return replace(data, epoch_megapixels=DataSettings.epoch_megapixels)


def before_images(settings: Settings) -> Resolution:
    """What is given; of what is not, the least: simulated images are drawn at it, and faulty ones are found at it."""
    data, why = settings.data, ""
    size = (SMALLEST, SMALLEST) if isinstance(data.size, str) else data.size
    if data.size == "auto" and data.source == "simulated":
        why = f"Size: {size[0]} x {size[1]}; simulated images are drawn at that size unless data.size names another."
    return Resolution(size, "stretch" if data.fit == "auto" else data.fit, why)  # type: ignore[arg-type]


def choose_resolution(settings: Settings, index: ImageIndex, folds: Sequence[Rows] | None, *, gpu: bool) -> Resolution:
    """The size and fit for these images, and a line that says why.

    Only training images count. What an epoch trains is that of all folds. Of images that are cut into tiles, it is the
    tiles that count.

    Args:
        folds: the rows that each fold trains on; None where all images are trained on.
        gpu: whether a GPU trains.
    """
    records, data = index.records, settings.data
    used = range(len(records)) if folds is None else np.unique(np.concatenate([*folds])).tolist()
    sizes = [size for row in used if (size := records[row].size) is not None]
    images = len(records) if folds is None else sum(map(len, folds))
    if data.tile is not None:
        tiling = Tiling(data.tile, data.tile_overlap)
        whole = [size for size in sizes if size[0] >= data.tile[0] and size[1] >= data.tile[1]]
        images = round(images * sum(map(tiling.count, whole)) / max(len(whole), 1))
        sizes = [data.tile]
    if isinstance(data.size, str):
        size, why = _choose(settings, sizes, images, gpu=gpu)
    else:
        size, why = data.size, ""
    fit = data.fit
    if fit == "auto":
        fit, factor = choose_fit(sizes, size)
        that = "" if size[0] == size[1] else f" times that of {size[0]} x {size[1]}"
        whose = "images" if data.tile is None else "tiles"
        off = f"data.fit={fit}, for the {whose}' aspect ratio is {factor:.2g}{that} (median)"
        if fit == "pad":
            why = f"{why or 'as given'}; {off}, more than {FAR_OFF:g}"
        elif why and factor >= _WORTH_SAYING:
            why = f"{why}; {off}"
    return Resolution(size, fit, why and f"Size: {size[0]} x {size[1]}; {why}.")  # type: ignore[arg-type]


def _choose(
    settings: Settings, sizes: Sequence[tuple[int, int]], images: int, *, gpu: bool
) -> tuple[tuple[int, int], str]:
    model, limit = settings.model, settings.data.epoch_megapixels
    on_cpu = Bounds(
        network=min(model.names, key=lambda name: _input_size(model.architecture_of(name)).native),
        native=native_size(settings),
        smallest=max(size.minimum for size in _input_sizes(settings)),
        trained=model.weights != "none",
        epoch_images=images,
        megapixels=limit,
        limit=f"data.epoch_megapixels={limit:g}",
        shown="images" if settings.data.tile is None else "tiles",
    )
    size, why = choose_size(sizes, on_cpu)
    if not gpu:
        return size, why
    said = f"{GPU_FACTOR} x {on_cpu.limit}, the limit on a GPU"
    found, why = choose_size(sizes, replace(on_cpu, megapixels=limit * GPU_FACTOR, limit=said))
    return found, why if found == size else f"{why}; without a GPU it would be {size[0]} x {size[1]}"
