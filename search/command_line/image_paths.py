"""From a path or a pattern to image files."""

from __future__ import annotations

import glob
from collections.abc import Collection
from pathlib import Path

from lightning_modules.errors import InputError, printable
from lightning_modules.images.tables import is_table, table_path
from search.command_line.csv_table import iterate_rows

__all__ = ["find_images", "images_in"]

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"))


def find_images(pattern: str, exclude: Collection[Path] = ()) -> list[Path]:
    """Image files, sorted; those of a table in its order, each once.

    Args:
        pattern: a file; a table (.csv, .tsv, .txt, .parquet) with a column path; a folder, searched to its depth for
            image files, hidden ones left out; or a pattern with *, ?, [...] and ** for any depth, whose files are taken
            whatever they are called.
        exclude: resolved paths that are no images to explain, such as masks.

    Raises:
        InputError: nothing is found.
    """
    path = Path(pattern)
    if is_table(path):
        listed = dict.fromkeys(table_path(path.parent, row["path"]) for _, row in iterate_rows(path, "images"))
        return [place for place in listed if place.resolve() not in exclude]
    if path.is_dir():
        found = images_in(path)
        reason = "the folder holds no image"
    elif path.exists():
        found, reason = [path], "it is a mask"
    else:
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (may be absolute)
        reason = "the pattern matches no file" if glob.has_magic(pattern) else "no such file or folder"
    images = sorted(p for p in found if p.is_file() and not (exclude and p.resolve() in exclude))
    if not images:
        raise InputError(f"images must name at least one image file, got {printable(pattern)}: {reason}")
    return images


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder and the folders in it, sorted; what is hidden is left out."""
    inside = (p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    return sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts))
