"""Simulated ultrasonic images: 11 internal defects in steel plate, 13 months with drift (``docs/simulated.md``).

``python -m lightning_modules.simulated OUT [images=1300] [size=[96,96]] [seed=0]`` writes them as folders by month.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_modules.errors import printable
from lightning_modules.simulated.months import CLASSES, MONTHS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CLASSES", "MONTHS", "SimulatedImage", "simulate", "write"]

SIDES = (16, 1024)
IMAGES = (1, 1_000_000)
SEEDS = (0, 2**63 - 1)

USAGE = """\
usage: python -m lightning_modules.simulated OUT [images=1300] [size=[96,96]] [seed=0]
       python -m lightning_modules.simulated --contact-sheet FILE.png [seed=0]

Writes simulated ultrasonic B-scans of 11 internal defects in steel plate, 13 months with drift, as
OUT/<YYYY-MM>/<class>/<name>.png, the defects' extent as OUT/.masks/<YYYY-MM>/<class>/<name>.png,
and OUT/manifest.csv (path,label,month,group,mask). OUT must not exist, or be an empty folder.

  images=N    number of images, 1..1000000; from 1300 on every class is in every month (default 1300)
  size=[H,W]  height and width in pixels, each 16..1024 (default [96,96])
  seed=N      0..9223372036854775807; image i is a function of seed, size and i alone (default 0)
"""


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


def _checked(name: str, value: object, bounds: tuple[int, int]) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"{name} must be in {bounds[0]}..{bounds[1]}, got {value}")
    return value


def _check(images: object, size: object, seed: object) -> None:
    _checked("images", images, IMAGES)
    _checked("seed", seed, SEEDS)
    if not isinstance(size, tuple | list):
        raise TypeError(f"size must be a pair (H, W) of ints, got {size!r}")
    if len(size) != 2:
        raise ValueError(f"size must be a pair (H, W), got {size!r}")
    for name, side in zip(("size height", "size width"), size, strict=True):
        _checked(name, side, SIDES)


def simulate(images: int, size: tuple[int, int] = (96, 96), seed: int = 0) -> Iterator[SimulatedImage]:
    """Simulated images in order; image i is of month i mod 13.

    Image i depends on (seed, size, i) alone: the first n of a longer run are the run of n. The geometry of the defect
    does not depend on ``size``, whose pixels share a fixed field of view of 48 x 48 mm. Class shares follow
    ``simulated_months.class_mix`` by quota; from 1300 images on every class is in every month.

    Args:
        images: how many, 1..1,000,000.
        size: (H, W) in pixels, each 16..1024.
        seed: 0..2^63 - 1.

    Returns:
        An iterator of ``images`` images, made one by one.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    _check(images, size, seed)
    return _images(images, (size[0], size[1]), seed)


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
    """Write the images as OUT/<month>/<class>/<name>.png, their masks under OUT/.masks, and OUT/manifest.csv.

    The manifest's columns are path, label, month, group, mask; its paths are relative to ``out``. Masks are 0 and
    255, in a hidden folder that ``data=folder`` passes over. All is written to a sibling folder first and renamed at
    the end, so ``out`` is complete or absent.

    Args:
        out: folder that does not exist yet, or is empty; its parent exists.
        images: as in ``simulate``.
        size: as in ``simulate``.
        seed: as in ``simulate``.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
        FileExistsError: ``out`` is a file, or a folder with something in it.
        FileNotFoundError: the parent of ``out`` does not exist.
    """
    _write(out, simulate(images, size, seed))


def _write(out: Path, images: Iterable[SimulatedImage]) -> None:
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


@dataclass(frozen=True)
class _Command:
    target: Path
    sheet: bool = False
    images: int = 1300
    size: tuple[int, int] = (96, 96)
    seed: int = 0


def _parse(arguments: Sequence[str]) -> _Command:
    """What the command line asks for; ValueError with one line where it cannot be read or is out of range."""
    sheet = "--contact-sheet" in arguments
    targets, numbers = [], dict[str, tuple[int, ...]]()
    accepted = {"seed": "seed=N"} if sheet else {"images": "images=N", "size": "size=[H,W]", "seed": "seed=N"}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if argument == "--contact-sheet":
            continue
        if argument.startswith("-"):
            raise ValueError(f"unknown option {argument!r}; accepted: --contact-sheet FILE.png, --help")
        if not equals or "/" in name or os.sep in name:
            targets.append(argument)
            continue
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown setting {name!r}{hint} (accepted: {', '.join(accepted.values())})")
        if name in numbers:
            raise ValueError(f"{name} must be given once, got it again as {text!r}")
        pattern = r"\[\s*([+-]?\d{1,20})\s*,\s*([+-]?\d{1,20})\s*\]" if name == "size" else r"([+-]?\d{1,20})"
        found = re.fullmatch(pattern, text, re.ASCII)
        if not found:
            kind = "two whole numbers as [H,W]" if name == "size" else "a whole number"
            raise ValueError(f"{name} must be {kind}, got {text!r}")
        numbers[name] = tuple(map(int, found.groups()))
    if len(targets) != 1:
        raise ValueError(f"exactly one {'FILE.png' if sheet else 'OUT'} must be given, got {len(targets)}: {targets}")
    (images,), (height, width), (seed,) = (
        numbers.get(name, default) for name, default in (("images", (1300,)), ("size", (96, 96)), ("seed", (0,)))
    )
    _check(images, (height, width), seed)
    return _Command(Path(targets[0]), sheet, images, (height, width), seed)


def _shown(images: Iterator[SimulatedImage], total: int) -> Iterator[SimulatedImage]:
    """``images`` with a progress bar where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield from images
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(images, "simulated images", total=total, console=Console(stderr=True))


def main(arguments: Sequence[str]) -> int:
    """Run the command line; 0, or 2 after one line on stderr that says what is wrong."""
    if "--help" in arguments or "-h" in arguments:
        print(USAGE, end="")
        return 0
    try:
        command = _parse(arguments)
        if command.sheet:
            from lightning_modules.simulated.sheet import contact_sheet

            contact_sheet(command.target, command.seed)
        else:
            _check_folder(command.target)
            _write(command.target, _shown(simulate(command.images, command.size, command.seed), command.images))
    except (ValueError, OSError) as error:
        print(f"simulated: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("simulated: interrupted, nothing written", file=sys.stderr)
        return 130
    print(printable(command.target))
    return 0
