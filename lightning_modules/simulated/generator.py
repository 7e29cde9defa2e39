"""Simulated ultrasonic images: 11 internal defects in steel plate, 13 months with drift (``docs/simulated.md``)."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_modules.errors import printable
from lightning_modules.simulated.months import CLASSES, MONTHS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CLASSES", "MONTHS", "SimulatedImage", "simulate", "write", "write_images"]

SIDES = (16, 1024)
IMAGES = (1, 1_000_000)
SEEDS = (0, 2**63 - 1)


@dataclass(frozen=True, eq=False)
class SimulatedImage:
    """One B-scan.

    Attributes:
        pixels: grey values, uint8, (H, W): depth downwards, scan position to the right, logarithmic amplitude.
        label: one of ``CLASSES``.
        month: one of ``MONTHS``.
        mask: true extent of the defect, bool (H, W); not widened by the beam.
        group: identity of the plate; one to four images are of one plate, and all of the same class and month.
    """

    pixels: NDArray[np.uint8]
    label: str
    month: str
    mask: NDArray[np.bool_]
    group: str


def simulate(images: int, size: tuple[int, int] = (96, 96), seed: int = 0) -> Iterator[SimulatedImage]:
    """Simulated images in order; image i is of month i mod 13.

    Image i depends on (seed, size, i) alone: the first n of a longer run are the run of n. The geometry of the defect
    does not depend on ``size``, whose pixels share a fixed field of view of 48 x 48 mm. Class shares follow
    ``months.class_mix`` by quota; from 1300 images on every class is in every month.

    Args:
        images: how many, 1..1,000,000; they are made one by one.
        size: (H, W) in pixels, each 16..1024.
        seed: 0..2^63 - 1.

    Raises:
        ValueError: an argument is out of range.
    """
    height, width = size
    for name, value, (low, high) in (
        ("images", images, IMAGES),
        ("seed", seed, SEEDS),
        ("size height", height, SIDES),
        ("size width", width, SIDES),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must be in {low}..{high}, got {value}")
    return _images(images, (height, width), seed)


def _images(images: int, size: tuple[int, int], seed: int) -> Iterator[SimulatedImage]:
    import numpy as np

    from lightning_modules.simulated.defects import draw
    from lightning_modules.simulated.months import conditions, plate, schedule
    from lightning_modules.simulated.physics import acquire, extent

    for index, what in zip(range(images), schedule(seed), strict=False):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, index)))
        steel = plate(seed, what)
        defect = draw(rng, what.label, steel.thickness)
        pixels = acquire(defect, steel, conditions(what.month), size, rng)
        yield SimulatedImage(pixels, what.label, what.month, extent(defect, size), what.group)


def write(out: Path, images: int = 1300, size: tuple[int, int] = (96, 96), seed: int = 0) -> None:
    """`write_images` of what `simulate` makes of the other arguments; raises as both do."""
    write_images(out, simulate(images, size, seed))


def write_images(out: Path, images: Iterable[SimulatedImage]) -> None:
    """Write images as OUT/<month>/<class>/<name>.png, their masks under OUT/.masks, and OUT/manifest.csv.

    The manifest's columns are path, label, month, group, mask; its paths are relative to ``out``. Masks are 0 and
    255, in a hidden folder that ``data=folder`` passes over. All is written to a sibling folder first and renamed at
    the end, so ``out`` is complete or absent.

    Raises:
        FileExistsError: ``out`` is a file, or a folder with something in it.
        FileNotFoundError: the parent of ``out`` does not exist.
    """
    import numpy as np
    from PIL import Image

    _check_folder(out)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        rows = []
        for index, image in enumerate(images):
            path = Path(image.month, image.label, f"{image.group}-{index:06d}.png")
            mask = Path(".masks") / path
            for place, array in ((path, image.pixels), (mask, image.mask * np.uint8(255))):
                (partial / place).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(partial / place)
            rows.append((path.as_posix(), image.label, image.month, image.group, mask.as_posix()))
        with (partial / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "label", "month", "group", "mask"), *rows])
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial)
        raise


def _check_folder(out: Path) -> None:
    if not out.name:
        raise FileExistsError(f"OUT must name a new folder, got {printable(out)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"the folder that holds OUT must exist, got {printable(out)}")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise FileExistsError(f"OUT must not exist or be an empty folder, got {printable(out)}")
