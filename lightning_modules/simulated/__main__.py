"""`python -m lightning_modules.simulated`: the simulated images as folders by month, or their contact sheet."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.errors import printable
from lightning_modules.home_folder import home_path
from lightning_modules.simulated.generator import SimulatedImage, simulate, write_images

__all__ = ["main"]

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
    simulate(images, (height, width), seed)  # refuses what is out of range, makes nothing yet
    return _Command(Path(home_path(targets[0], "OUT")), sheet, images, (height, width), seed)


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
            simulated = simulate(command.images, command.size, command.seed)
            write_images(command.target, _shown(simulated, command.images))
    except (ValueError, OSError) as error:
        print(f"simulated: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("simulated: interrupted, nothing written", file=sys.stderr)
        return 130
    print(printable(command.target))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
