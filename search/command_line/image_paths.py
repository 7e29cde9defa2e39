"""From a path or a pattern to image files."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator
from pathlib import Path

from lightning_modules.errors import InputError, printable
from lightning_modules.images.folders import Skipped, is_system, walk_images
from lightning_modules.images.tables import is_table, table_path
from search.command_line.csv_table import iterate_rows

__all__ = ["find_images", "image_names", "nothing_found"]


def image_names(pattern: str, skipped: Skipped) -> Iterator[str]:
    """Image files, in no order.

    Args:
        pattern: a file; a folder, searched to its depth for image files; or a pattern with *, ?, [...] and ** for any
            depth, whose files are taken whatever they are called.
        skipped: counts what is passed over: what is hidden, or a system's own and not named in the pattern.
    """
    path = Path(pattern)
    if path.is_dir():
        yield from walk_images(path, skipped)
    elif path.exists():
        yield pattern
    else:
        for name in glob.iglob(pattern, recursive=True):  # noqa: PTH207 (may be absolute)
            system = next((part for part in Path(name).parts if is_system(part) and part not in pattern), None)
            if system is None and Path(name).is_file():
                yield name
            elif system is not None:
                skipped.passes(system)


def nothing_found(pattern: str, skipped: Skipped) -> InputError:
    """Why a path or a pattern names no image."""
    reason = "the pattern matches no file" if glob.has_magic(pattern) else "no such file or folder"
    if Path(pattern).exists():
        reason = "the folder holds no image" if Path(pattern).is_dir() else "it is a mask"
    reason = "; ".join([reason, *skipped.notes()])
    return InputError(f"images must name at least one image file, got {printable(pattern)}: {reason}")


def find_images(pattern: str, skipped: Skipped, exclude: Collection[Path] = ()) -> list[Path]:
    """Image files, sorted; those of a table in its order, each once.

    Args:
        pattern: a table (.csv, .tsv, .txt, .parquet) with a column path, or as in `image_names`.
        exclude: resolved paths that are no images to explain, such as masks.

    Raises:
        InputError: nothing is found.
    """
    if is_table(path := Path(pattern)):
        found = list(dict.fromkeys(table_path(path.parent, row["path"]) for _, row in iterate_rows(path, "images")))
    else:
        found = sorted(map(Path, image_names(pattern, skipped)))
    images = [image for image in found if not (exclude and image.resolve() in exclude)]
    if not images:
        raise nothing_found(pattern, skipped)
    return images
