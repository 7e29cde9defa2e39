"""CSV files: tables of images as users give them, with paths relative to the table's folder, and tables of results."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from lightning_modules.errors import InputError, printable

__all__ = ["TableWriter", "iterate_rows", "read_rows"]

# OWASP, CSV Injection. The apostrophe is among them so that one at the beginning of a cell is always ours.
_MARKED = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20'")
_QUOTED = re.compile(r'[",;\t\r\n]')
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


class TableWriter:
    r"""Writes rows as RFC 4180 quotes them, each ended by \n, which no spreadsheet takes for formulas.

    A cell that begins with = + - @ (also in full width), a tab, a line end or an apostrophe, and is no number, gets an
    apostrophe in front, to be dropped when it is read. A cell with another separator that spreadsheets know, ; or a
    tab, is quoted too. Bytes of names that are not UTF-8 are shown as \xe9.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write_row(self, cells: Iterable[object]) -> None:
        """Write a row of texts and numbers."""
        texts = (str(cell).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for cell in cells)
        marked = [f"'{t}" if t.startswith(_MARKED) and not _NUMBER.fullmatch(t) else t for t in texts]
        quoted = ('"{}"'.format(t.replace('"', '""')) if t == "" or _QUOTED.search(t) else t for t in marked)
        self._file.write(",".join(quoted) + "\n")


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
