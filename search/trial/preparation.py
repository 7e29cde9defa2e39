"""Before the first trial: images and splits, and what makes a study this study."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import optuna
import torch
from rich.console import Console

from lightning_modules.decisions.costs import Costs, read_costs
from lightning_modules.errors import InputError, printable
from lightning_modules.images.index import ImageIndex, value_notes
from lightning_modules.images.resolution import Resolution
from lightning_modules.images.split_units import Rows
from lightning_modules.images.splits import Splits
from lightning_modules.images.store import ImageSet, load_images
from lightning_modules.images.tiling import Tiling
from lightning_modules.images.value_range import ValueRange
from lightning_modules.networks import backbones
from lightning_modules.training.allocator import keep_freed_memory
from search.command_line.plain_line import print_line
from search.settings.schema import Settings
from search.trial.keys import digest
from search.trial.resolution import before_images, choose_resolution, is_open, largest_size, resolved
from search.trial.space import Space, build_space, check_fostering, fosters
from search.trial.splitting import split
from search.trial.task import choose_device

__all__ = [
    "costs_of", "default_name", "describe_data", "load", "prepare_process", "resolved", "space_of", "split",
    "tiling_of", "training_rows",
]  # fmt: skip


def load(
    settings: Settings,
    console: Console,
    *,
    accept: Callable[[ImageIndex], Sequence[Rows] | None] | None = None,
    value_range: ValueRange | None = None,
) -> ImageSet:
    """List, check and decode the images; nothing is kept of input that is refused.

    A size and fit that are still to be chosen are; `resolved` puts them into the settings.

    Args:
        accept: called with the index; raises to refuse it. Returns the rows that each fold trains on, which decide what
            values become black and white, and the size; None for all. The default refuses what cannot be split as the
            settings say.
        value_range: see `load_images`.
    """
    data, given = settings.data, before_images(settings)
    gpu = choose_device(settings.trainer.accelerator).type == "cuda"
    folds = accept or (lambda index: [fold.train for fold in split(settings, index).folds])

    def training(index: ImageIndex) -> Rows | None:
        rows = folds(index)
        return None if rows is None else training_rows(rows)

    def choose(index: ImageIndex) -> Resolution:
        found = choose_resolution(settings, index, folds(index), gpu=gpu)
        # A map must not be too small, an attention branch stands where maps are large enough, and some of timm's
        # networks take images of their own size alone.
        needs_maps = fosters(settings) or settings.model.attention is not None
        if needs_maps or any(name.startswith("timm:") for name in settings.model.names):
            try:
                space_of(replace(settings, data=replace(data, size=found.size, fit=found.fit)))
            except InputError as error:
                asked = f"; data.size=auto chose {found.size[0]} x {found.size[1]}" if data.size == "auto" else ""
                raise InputError(f"{error}{asked}") from None
        return found

    def show(done: int, total: int) -> None:
        status.update(f"Reading images: {done} of {total}")

    with console.status("Reading images") as status:
        images = load_images(
            data.source,  # type: ignore[arg-type]
            data.path,
            size=given.size,
            fit=given.fit,
            on_bad=data.on_bad,  # type: ignore[arg-type]
            min_per_class=data.min_per_class,
            max_pixels=data.max_pixels,
            groups=data.groups,  # type: ignore[arg-type]
            outside=data.outside,  # type: ignore[arg-type]
            images=data.images,
            seed=settings.seed,
            cache=settings.tracking.root / "cache",
            on_progress=show,
            on_note=partial(print_line, console),
            accept=training,
            value_range=value_range,
            choose=choose if is_open(settings) and data.source != "simulated" else None,
            tiling=tiling_of(settings),
        )
    return replace(images, resolution=given) if given.why else images


def costs_of(settings: Settings, classes: tuple[str, ...], on_note: Callable[[str], None]) -> Costs | None:
    """The table of `decision.costs`, for these classes; None where the settings name none.

    Raises:
        InputError: see `read_costs`.
    """
    path = settings.decision.costs
    return None if path is None else read_costs(path, classes, on_note=on_note)


def tiling_of(settings: Settings) -> Tiling | None:
    """How the settings cut images into tiles; None where they do not."""
    data = settings.data
    return None if data.tile is None else Tiling(data.tile, data.tile_overlap, data.normal)


def training_rows(folds: Sequence[Rows]) -> Rows:
    """Positions of the images that any fold trains on."""
    return np.unique(np.concatenate([*folds]))


def describe_data(console: Console, images: ImageSet, splits: Splits) -> None:
    """Say what was found, at what size it is seen, and what was set aside and why."""
    index = images.index
    months = f", {len(index.months)} months {index.months[0]} to {index.months[-1]}" if index.months else ""
    folds = f" in {len(splits.folds)} folds" if len(splits.folds) > 1 else ""
    print_line(
        console,
        f"Images: {len(index.records)} in {len(index.classes)} classes{months}; "
        f"{len(splits.folds[0].train)} train, {len(splits.folds[0].val)} validation{folds}, {len(splits.test)} test.",
    )
    for note in (*index.notes, *value_notes(index), *splits.notes):
        print_line(console, f"  {note}")
    if images.resolution is not None and images.resolution.why:
        print_line(console, images.resolution.why)
    if index.set_aside:
        console.print(f"Set aside: {len(index.set_aside)} inputs.", style="yellow")
        for problem in index.set_aside:
            print_line(console, f"  {problem.path}: {problem.reason}")


def default_name(settings: Settings, identity: dict[str, Any]) -> str:
    """Name of a study that the user did not name: data, network and a digest of its identity."""
    path = settings.data.path
    data = settings.data.source
    if path is not None:
        data = path.resolve().parent.name if path.is_file() else path.resolve().name
    words = "".join(c if c.isalnum() and c.isascii() else "-" for c in f"{data}-{'-'.join(settings.model.names)}")
    return f"{words.strip('-')}-{digest(identity, 4)}"


def prepare_process(settings: Settings) -> None:
    """Threads and memory of this process.

    Raises:
        InputError: a device that is not there, or a place for the results that cannot be used.
    """
    keep_freed_memory()
    torch.set_num_threads(settings.executor.threads or len(os.sched_getaffinity(0)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choose_device(settings.trainer.accelerator)
    root = settings.tracking.root
    nearest = next(place for place in (root, *root.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise InputError(f"tracking.root must be a folder, got {printable(root)}: {printable(nearest)} is a file")
    if any(c in "?%" or "\udc80" <= c <= "\udcff" for c in str(root.resolve())):
        # It becomes part of a URL: MLflow would open another file, or try for minutes to open none.
        raise InputError(f"tracking.root must be a path without ? and %, in UTF-8, got {printable(root.resolve())}")


def space_of(settings: Settings) -> Space:
    """The space of these settings; finds wrong names, weights, sizes and depths before any image is read.

    Where the size is still to be chosen the network is built at the largest that can be.

    Raises:
        InputError: one of these.
    """
    model, size = settings.model, largest_size(settings)
    build = partial(
        backbones.build, classes=2, size=size, weights=model.weights, seed=settings.seed, attention=model.attention
    )
    nets = {name: build(model.architecture_of(name)) for name in model.names}
    first = nets[model.names[0]]
    others = nets if model.several else None
    space = build_space(settings.space, first, beta=settings.trainer.fostering.beta, others=others)
    for net in nets.values():
        check_fostering(settings, space, net)
    return space
