"""Training images with their classes, as a folder or as a table names them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from lightning_modules.errors import InputError, printable
from lightning_modules.images.folders import Skipped, walk_images
from lightning_modules.images.listing import split_of
from lightning_modules.images.tables import table_path
from search.command_line.csv_table import iterate_rows

__all__ = ["labelled_images"]


def labelled_images(source: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Images and the positions of their classes.

    Args:
        source: a folder, where the nearest folder above an image that bears the name of a class says its class; or a
            table path,label. What is in a folder test, or in rows with `split` test, is left out.

    Raises:
        InputError: no such folder or file, an image or row of no class of these, an image of two classes, a class
            without an image.
    """
    if not source.exists():
        raise InputError(f"gap_head must name a folder or a table, got {printable(source)}: no such file")
    found = _of_folder(source, classes) if source.is_dir() else _of_table(source, classes)
    missing = [name for k, name in enumerate(classes) if k not in {label for _, label in found}]
    if missing:
        raise InputError(
            f"gap_head={printable(source)} must hold images of every class of the model, it has none of "
            f"{printable(', '.join(missing))}"
        )
    return found


def _of_folder(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    place = {unicodedata.normalize("NFC", name): k for k, name in enumerate(classes)}
    found = []
    for path in sorted(map(Path, walk_images(folder, Skipped()))):
        above = [unicodedata.normalize("NFC", part) for part in path.relative_to(folder).parts[-2::-1]]
        if any(split_of(part) == "test" and part not in place for part in above):
            continue
        label = next((place[part] for part in above if part in place), None)
        if label is None:
            raise InputError(
                f"gap_head={printable(folder)} must hold a folder for each class ({printable(', '.join(classes))}), "
                f"got {printable(path.relative_to(folder))}"
            )
        found.append((path, label))
    return found


def _of_table(table: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    place = {unicodedata.normalize("NFC", name): k for k, name in enumerate(classes)}
    found: dict[Path, int] = {}
    for number, row in iterate_rows(table, "gap_head", ("label",), ("split",)):
        if row.get("split") == "test":
            continue
        path = table_path(table.parent, row["path"]).resolve()
        if (label := row["label"]) not in place:
            raise InputError(
                f"{printable(table)} row {number}: label must be a class of the model "
                f"({printable(', '.join(classes))}), got {printable(repr(label))}"
            )
        if found.setdefault(path, place[label]) != place[label]:
            raise InputError(
                f"{printable(table)} row {number}: {printable(row['path'])} is {printable(label)} here and "
                f"{printable(classes[found[path]])} further up"
            )
    return list(found.items())
