"""Tables that users give (manifests, lists of images, boxes, masks): read alike, whatever program wrote them."""

from __future__ import annotations

import codecs
import csv
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from lightning_modules.errors import InputError, printable

__all__ = ["exists", "is_table", "read_table", "table_path"]

# Spreadsheets are among them so that they are refused as what they are.
_SUFFIXES: Final = frozenset({".csv", ".tsv", ".txt", ".parquet", ".pq", ".xlsx", ".xls", ".ods"})
_PARQUET: Final = "Parquet"
_NO_TEXT: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")  # archives (.xlsx, .ods), old Excel, gzip
_SAVE: Final = "save it as CSV UTF-8, which spreadsheets offer, or as Parquet"
# A few hundred kilobytes of Parquet can hold billions of equal rows.
_MOST_ROWS: Final = 10_000_000
_MOST_BYTES: Final = 1 << 31
_FILES: Final = ("path", "mask")
_NO_UTF8: Final = re.compile("[\udc80-\udcff]")

Record = tuple[int, list[str]]


def is_table(path: Path) -> bool:
    """Whether a file that may be an image or a table is a table, by its suffix."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def exists(path: Path) -> bool:
    """Whether there is something; names that no file can have are nowhere."""
    try:
        return path.exists()
    except (OSError, ValueError):  # names too long, or with a null character
        return False


def table_path(folder: Path, cell: str) -> Path:
    """The file that a cell of a table in this folder names.

    Paths are relative to the folder, or absolute, or file:// addresses. Where there is no such file, backslashes are
    taken for slashes, and letters with marks for the same ones composed otherwise.
    """
    if (cell.isascii() and "\\" not in cell and ":" not in cell) or exists(folder / cell):
        return folder / cell
    place = cell.replace("\\", "/")
    if cell[:7].lower() == "file://":
        place = os.fsdecode(unquote_to_bytes(cell[7:].removeprefix("localhost")))
    forms = [place, *(unicodedata.normalize(form, place) for form in ("NFC", "NFD"))]
    return folder / next((form for form in forms if exists(folder / form)), place)


def read_table(
    path: Path, what: str, required: Sequence[str], optional: Sequence[str] = (), *, on_note: Callable[[str], None]
) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Names of the columns that are not asked for, and of each row that is not empty its number and its cells.

    Text may be separated by commas, semicolons, tabs or bars, in UTF-8, UTF-16 with its mark or code page 1252; Parquet
    is known by its suffix or its first bytes. Names of columns are compared without case. Blanks around names and cells
    are dropped, and texts are NFC; names of files that are not UTF-8 keep their bytes where there is such a file. Whole
    numbers that Parquet has as floats (pandas makes them where one is missing) are written as whole numbers. Rows are
    read as they are asked for, and numbered as a spreadsheet shows them (the names are row 1; in Parquet row 0).

    Args:
        what: stands before the path in messages, as in "images=".
        on_note: called with a line where the table is read in another encoding than UTF-8.

    Raises:
        InputError: no table, columns missing or named twice; while rows are read, a row that is longer, cells of an
            unknown encoding, no row, or more than ten million.
    """
    name, accepted = f"{what}{printable(path)}", (*required, *optional)
    try:
        encoding = _encoding(path, name)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None
    records = _records(path, name, encoding, accepted)
    header = [cell.strip().lstrip("\ufeff") for cell in next(records)[1]]  # a mark too many
    columns = [cell.casefold() for cell in header]
    missing = ", ".join(column for column in required if column not in columns)
    twice = next((column for column in columns if column and columns.count(column) > 1), None)
    if missing or twice:
        wrong = f"has no column {missing}" if missing else f"names column {printable(twice)} twice"
        found = ", ".join(printable(cell) for cell in header if cell) or "nothing"
        raise InputError(f"{name} {wrong}; found {found}; accepted are {', '.join(accepted)}")
    if encoding == "cp1252":
        on_note(f"{name} is not UTF-8: read as code page 1252 (Windows), but for names of files of these very bytes")

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        empty = True
        for number, cells in records:
            if number > _MOST_ROWS:
                raise InputError(f"{name} has more than {_MOST_ROWS} rows")
            if any(cell.strip() for cell in cells[len(columns) :]):
                wrong = f"{len(cells)} cells under {len(columns)} columns; a cell that holds the separator needs quotes"
                raise InputError(f"{name} row {number}: {wrong}")
            if not any(cell.strip() for cell in cells):
                continue
            empty = False
            padded = chain(cells, [""] * (len(columns) - len(cells)))
            row = {column: cell for column, cell in zip(columns, padded, strict=False) if column in accepted}
            for column, cell in row.items():
                plain = cell.isascii() and cell == cell.strip()
                if plain or (column in _FILES and exists(path.parent / cell)):  # blanks and bytes are its name's own
                    continue
                if encoding == "unknown" and _NO_UTF8.search(cell):
                    raise InputError(
                        f"{name} row {number}: {printable(cell)} is neither UTF-8 nor plainly code page 1252: {_SAVE}"
                    )
                text = _NO_UTF8.sub(lambda byte: os.fsencode(byte[0]).decode("cp1252"), cell).strip()
                row[column] = text if column in _FILES else unicodedata.normalize("NFC", text)
            yield number, row
        if empty:
            raise InputError(f"{name} holds no row below its names of columns")

    return [cell for cell, column in zip(header, columns, strict=True) if column and column not in accepted], rows()


def _encoding(path: Path, name: str) -> str:
    """Parquet, utf-16, utf-8, cp1252 or unknown.

    Nothing says what code page bytes are in. Code page 1252 is assumed where they stand singly or in pairs, as accented
    letters do (other scripts come in longer runs, or in pairs alone), and none is a letter in old code pages alone.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name} is not a file; accepted are CSV, TSV and Parquet files")
    if status.st_size > _MOST_BYTES:
        raise InputError(f"{name} has {status.st_size} bytes; accepted are {_MOST_BYTES} at most")
    utf8, runs = False, set[str]()
    with path.open("rb") as file:
        start = file.read(4)
        if start == b"PAR1" or path.suffix.lower() in (".parquet", ".pq"):
            return _PARQUET
        if start.startswith(_NO_TEXT):
            raise InputError(f"{name} is a spreadsheet or an archive, not a table of text: {_SAVE}")
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        file.seek(0)
        while line := file.readline(1 << 20):
            try:
                utf8 |= not line.isascii() and bool(line.decode())
            except UnicodeDecodeError:
                for run in re.findall(rb"[\x80-\xff]+", line):
                    letters = re.fullmatch(rb"[\xb0\xb5\xc0-\xff]{1,2}", run)
                    runs.add("foreign" if letters is None else "single" if len(run) == 1 else "pair")
    if not runs:
        return "utf-8"
    return "cp1252" if "single" in runs and "foreign" not in runs and not utf8 else "unknown"


def _records(path: Path, name: str, encoding: str, accepted: Sequence[str]) -> Iterator[Record]:
    """The number and the cells of the names of the columns, then of each row; errors in one line."""
    number, kind = 0, _PARQUET if encoding == _PARQUET else "CSV"
    try:
        read = _parquet_records(path, accepted) if kind == _PARQUET else _text_records(path, encoding, accepted)
        for number, cells in read:
            yield number, cells
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except Exception as error:  # pyarrow, csv and the codecs raise kinds of their own
        detail = printable(" ".join(str(error).split())[:160])
        raise InputError(f"{name} cannot be read as {kind}: {detail} (after row {number})") from None


def _text_records(path: Path, encoding: str, accepted: Sequence[str]) -> Iterator[Record]:
    # What is not UTF-8 is kept as surrogates.
    codec, errors = (encoding, "strict") if encoding == "utf-16" else ("utf-8-sig", "surrogateescape")
    with path.open(encoding=codec, errors=errors, newline="") as file:
        first, separator, header = 1, "", ""
        for header in file:
            if told := re.fullmatch(r'"?sep=(.)"?\s*', header, re.IGNORECASE):
                separator = told[1]  # Excel's first line, which it does not show
            elif header.strip():
                break
            else:
                first += 1
        if "\0" in header:
            raise InputError(f"holds NUL bytes in place of its names of columns: {_SAVE}")

        def known(separator: str) -> tuple[int, int]:
            cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
            return len({cell.strip().casefold() for cell in cells}.intersection(accepted)), header.count(separator)

        # Spreadsheets of some languages write semicolons into CSV.
        separator = separator or max(",;\t|", key=known)
        rows = csv.reader(chain([header], file), delimiter=separator, strict=True, skipinitialspace=True)
        yield from enumerate(rows, first)


def _parquet_records(path: Path, accepted: Sequence[str]) -> Iterator[Record]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [str(name) for name in file.schema_arrow.names]
        if file.metadata.num_rows > _MOST_ROWS:
            raise InputError(f"has more than {_MOST_ROWS} rows")
        yield 0, names
        batches = file.iter_batches(columns=[name for name in names if name.strip().casefold() in accepted])
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield number, [_text(row.get(name)) for name in names]  # only accepted columns were read


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    whole = isinstance(value, float) and value.is_integer()
    return "" if value is None or value != value else str(int(value) if whole else value)
