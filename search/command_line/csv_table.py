"""Tables: those of images as users give them, and those of results, which are CSV."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from lightning_modules.errors import InputError, printable
from lightning_modules.images.tables import read_table

__all__ = ["TableWriter", "iterate_rows"]

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


def iterate_rows(
    table: Path, argument: str, columns: Sequence[str] = (), optional: Sequence[str] = ()
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Row number and cells of each row, read as they are asked for; see `read_table`, and `table_path` for its files.

    Args:
        argument: what names the table, for messages.
        columns: those that it must have beside path.
        optional: those that it may have.

    Raises:
        InputError: no table, missing columns, no row, a row without a path.
    """
    columns = ("path", *columns)
    _, rows = read_table(table, f"{argument}=", columns, optional, on_note=lambda line: print(line, file=sys.stderr))
    for number, row in rows:
        wrong = "empty path" if not row["path"] else "a NUL byte" if "\0" in "".join(row.values()) else ""
        if wrong:
            raise InputError(f"{argument}={printable(table)} row {number}: {wrong}")
        yield number, row
