"""Tables of images: CSV files whose paths are relative to the folder of the table."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_modules.errors import InputError, printable

__all__ = ["iterate_rows", "read_rows"]


def iterate_rows(table: Path, argument: str, columns: Sequence[str] = ()) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line and cells of each row that names an image, read as they are asked for.

    Args:
        table: CSV file in UTF-8 with a column path.
        argument: what names the table, for messages.
        columns: other columns that it must have.

    Raises:
        InputError: no such file, missing columns, no CSV, no row.
    """
    empty = True
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [c for c in ("path", *columns) if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{argument}={printable(table)} must have columns {','.join(('path', *columns))}; "
                    f"it lacks {', '.join(missing)}"
                )
            for row in reader:
                if row["path"]:
                    empty = False
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{argument} must be a CSV file, got {printable(table)} ({reason})") from error
    if empty:
        raise InputError(f"{argument}={printable(table)} holds no row")


def read_rows(table: Path, argument: str, columns: Sequence[str]) -> Sequence[tuple[int, Path, Mapping[str, str]]]:
    """Line, resolved path of the image and cells of each row that names an image; see `iterate_rows`."""
    rows = iterate_rows(table, argument, columns)
    return [(line, (table.parent / row["path"]).resolve(), row) for line, row in rows]
