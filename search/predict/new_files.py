"""A table and a folder of pictures that appear when they are complete, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from lightning_modules.errors import InputError, printable
from lightning_modules.whole_file import whole_file
from search.command_line.output_folder import check_free, new_folder

__all__ = ["check_places", "map_name", "new_maps", "new_table"]

_MAP = re.compile(r"[0-9]{8}_.*\.png", re.DOTALL)


def map_name(number: int, image: Path) -> str:
    """File name of the map of an image, its place in the list counted from 1."""
    stem = re.sub(r"[^\w.-]+", "_", image.stem)[:60]
    return f"{number:08d}_{stem}.png"


def check_places(images: str, to: Path | None, maps: Path | None, *, overwrite: bool) -> None:
    """Refuse places where results would destroy something, before any work is done.

    Raises:
        InputError: results that are there without `overwrite`, a folder in place of the table, a table over its own
            input, maps inside the folder of the images, or a folder of maps that holds anything else.
    """
    if to is not None:
        if to.is_dir():
            raise InputError(f"to must be a CSV file, got {printable(to)}, which is a folder")
        if to.exists() and not to.is_file():
            raise InputError(f"to must be a regular file, got {printable(to)}; to=- writes to standard output")
        if to.exists() and Path(images).exists() and to.samefile(images):
            raise InputError(f"to={printable(to)} is the input; name another file")
        if to.is_file() and not overwrite:
            raise InputError(f"to={printable(to)} exists; overwrite=true replaces it")
    if maps is None:
        return
    if Path(images).is_dir() and maps.resolve().is_relative_to(Path(images).resolve()):
        raise InputError(
            f"maps_to={printable(maps)} is inside images={printable(images)}: the maps would be taken for images next "
            "time; name a folder outside"
        )
    if overwrite and maps.is_dir():
        with os.scandir(maps) as entries:
            foreign = next((entry.name for entry in entries if not _MAP.fullmatch(entry.name)), None)
        if foreign is not None:
            raise InputError(
                f"maps_to={printable(maps)} holds {printable(foreign)}, which is no map; overwrite=true replaces "
                "only a folder that holds nothing else"
            )
        return
    try:
        check_free(maps)
    except InputError as error:
        reason = str(error).replace("to must", "maps_to must", 1)
        raise InputError(f"{reason}; overwrite=true replaces maps") from None


@contextmanager
def new_table(to: Path | None, *, whole: bool) -> Iterator[IO[str]]:
    """A text file to write into, which takes its place when the block ends without an error.

    Args:
        to: the file; None for standard output.
        whole: whether standard output is given nothing before the block has ended without an error.

    Raises:
        InputError: the file cannot be made.
    """
    if to is None:
        sys.stdout.flush()
        # Not sys.stdout itself, whose encoding is the terminal's: a table is UTF-8.
        with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as stdout:
            if not whole:
                yield stdout
                return
            with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as spool:
                yield spool
                spool.seek(0)
                shutil.copyfileobj(spool, stdout)
        return
    place = to.resolve()  # a link stays one
    made = [folder for folder in (place.parent, *place.parent.parents) if not folder.exists()]
    try:
        with ExitStack() as stack:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(whole_file(place, alone=False))
                file = stack.enter_context(temporary.open("w", encoding="utf-8", newline=""))
            except OSError as error:
                raise InputError(f"to={printable(to)} cannot be made ({error.strerror})") from error
            yield file
    except BaseException:
        for folder in made:
            with suppress(OSError):  # another process put something there
                folder.rmdir()
        raise


@contextmanager
def new_maps(maps: Path | None) -> Iterator[Path | None]:
    """A folder to write maps into, which takes the place of one that is there when the block ends without an error."""
    if maps is None:
        yield None
        return
    old = maps.with_name(f".{maps.name}.old")
    try:
        with new_folder(maps) as folder:
            yield folder
            if maps.exists() and any(maps.iterdir()):
                shutil.rmtree(old, ignore_errors=True)  # of a run that was killed
                maps.replace(old)
    except BaseException:
        if old.exists() and not maps.exists():
            old.replace(maps)
        raise
    shutil.rmtree(old, ignore_errors=True)
