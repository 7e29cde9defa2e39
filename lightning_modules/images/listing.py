"""Which images a manifest names, before any of them is opened, and what every listing of images holds."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from lightning_modules.errors import InputError, Problem, printable

__all__ = ["MONTH_RULE", "ListedImage", "Listing", "Outside", "Places", "is_month", "list_manifest"]

Outside = Literal["refuse", "allow"]

# What a manifest may say of an image.
_COLUMNS: Final = ("path", "label", "month", "group", "split", "mask")
# A few hundred kilobytes of Parquet can hold billions of equal rows.
_MOST_ROWS: Final = 10_000_000
_MOST_BYTES: Final = 1 << 31

_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_SPLITS: Final = ("train", "val", "test")
MONTH_RULE: Final = "a month is YYYY-MM with MM in 01..12"
_OWN_FOLDER: Final = "the manifest's folder"


def is_month(text: str) -> bool:
    """Whether the text is a month, YYYY-MM.

    >>> is_month("2019-12"), is_month("2019-13"), is_month("2019-1")
    (True, False, False)
    """
    return _MONTH.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image as its folder or manifest row describes it; see `ImageRecord` for the fields."""

    path: Path
    label: str
    month: str | None = None
    group: str | None = None
    split: str | None = None
    mask: Path | None = None


@dataclass
class Listing:
    """What was found, in an order that depends on names only.

    Attributes:
        root: Folder or manifest that was read.
        images: Images, not opened yet.
        problems: What is wrong without opening any.
        notes: What the user should know.
    """

    root: Path
    images: list[ListedImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, path: Path, reason: str) -> None:
        self.problems.append(Problem(printable(path), reason))


def list_manifest(path: Path, outside: Outside = "refuse") -> Listing:
    """Images of a CSV, TSV or Parquet file with columns path, label and, optionally, month, group, split, mask.

    Relative paths start at the manifest's folder. CSV is UTF-8; names of files that are not UTF-8 keep their bytes.
    Rows are numbered as a spreadsheet shows them (the header is row 1); in Parquet the first row is row 1. A column
    month or split that is empty in every row counts as absent.

    Args:
        outside: "refuse" makes images and masks outside the manifest's folder problems.

    Raises:
        InputError: Not a readable manifest, columns are missing, or more than ten million rows.
    """
    if not path.is_file():
        raise InputError(f"data.path={printable(path)} is not a file; data=manifest reads a CSV, TSV or Parquet file")
    columns, rows, first = _read_manifest(path)
    missing = [name for name in ("path", "label") if name not in columns]
    if missing or len(set(columns)) < len(columns):
        wrong = f"has no column {' and '.join(missing)}" if missing else "names a column twice"
        raise InputError(
            f"manifest {printable(path)} {wrong}; found {', '.join(map(printable, columns)) or 'nothing'}; "
            f"accepted are {', '.join(_COLUMNS)}"
        )
    listing = Listing(path)
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown:
        listing.notes.append(f"unknown columns of the manifest ignored: {', '.join(map(printable, unknown))}")
    _check_rows(listing, rows, Places(path.parent, outside), first)
    return listing


def _check_rows(listing: Listing, rows: list[dict[str, str]], places: Places, first: int) -> None:
    folder = listing.root.parent
    known = {name for name in ("month", "split") if any(row.get(name) for row in rows)}
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, first):
        if not row:
            continue
        place, label = row.get("path", ""), unicodedata.normalize("NFC", row.get("label", ""))
        month, split, mask = (row.get(name) or None for name in ("month", "split", "mask"))
        path, mask_path = folder / place, folder / mask if mask else None
        identity = os.path.normpath(path)
        wrong = []
        if not place:
            wrong.append("empty path")
        elif places.leads_out(path):
            wrong.append(f"{printable(place)} {places.reason(_OWN_FOLDER)}")
        elif not _exists(path):
            wrong.append(f"no such file: {printable(path)}")
        elif seen.setdefault(identity, number) != number:
            wrong.append(f"the same path as row {seen[identity]}: {printable(place)}")
        if not label or label != printable(label):
            wrong.append("empty label" if not label else f"label that cannot be printed: {printable(label)}")
        if "month" in known and not is_month(month or ""):
            wrong.append(f"month {printable(month or '')!r}; {MONTH_RULE}")
        if "split" in known and split not in _SPLITS:
            wrong.append(f"split {printable(split or '')!r}; accepted are {', '.join(_SPLITS)}")
        if mask_path is not None and places.leads_out(mask_path):
            wrong.append(f"mask {printable(mask or '')} {places.reason(_OWN_FOLDER)}")
        elif mask_path is not None and not _exists(mask_path):
            wrong.append(f"no such mask: {printable(mask_path)}")
        for reason in wrong:
            listing.report(listing.root, f"row {number}: {reason}")
        if not wrong:
            group = unicodedata.normalize("NFC", row.get("group", "")) or None
            listing.images.append(ListedImage(path, label, month, group, split, mask_path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # names too long, or with a null character
        return False


def _read_manifest(path: Path) -> tuple[list[str], list[dict[str, str]], int]:
    """Names of all columns, the rows (of `_COLUMNS` only where Parquet has others), and the number of the first row.

    Raises:
        InputError: The file cannot be read, or has more than 2 GiB or ten million rows.
    """
    parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise InputError(f"manifest {printable(path)} has {size} bytes; accepted are {_MOST_BYTES} at most")
        columns, rows = _parquet_rows(path) if parquet else _text_rows(path)
    except InputError:
        raise
    except Exception as error:  # pyarrow, csv and the codecs raise kinds of their own
        detail = printable(" ".join(str(error).split())[:160])
        raise InputError(
            f"manifest {printable(path)} cannot be read as {'Parquet' if parquet else 'CSV'}: {detail}"
        ) from None
    return columns, rows, 1 if parquet else 2


def _parquet_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    _check_number(path, file.metadata.num_rows)
    columns = [str(name) for name in file.schema_arrow.names]
    table = pq.read_table(path, columns=[name for name in columns if name in _COLUMNS])
    rows: list[dict[str, Any]] = table.to_pylist()
    return columns, [{k: "" if v is None or v != v else str(v).strip() for k, v in row.items()} for row in rows]


def _text_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    import csv

    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        # Spreadsheets of some languages write semicolons into CSV.
        separator = max("\t;,", key=header.count)
        columns = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        rows = []
        for number, cells in enumerate(csv.reader(file, delimiter=separator, strict=True), 2):
            _check_number(path, number)
            if not any(cells):
                cells = []
            if len(cells) > len(columns):
                raise InputError(
                    f"manifest {printable(path)} row {number}: {len(cells)} cells under {len(columns)} columns"
                )
            rows.append({name: cell.strip() for name, cell in zip(columns, cells, strict=False)})
    return columns, rows


def _check_number(path: Path, rows: int) -> None:
    if rows > _MOST_ROWS:
        raise InputError(f"manifest {printable(path)} has more than {_MOST_ROWS} rows")


class Places:
    """Tells paths that lie in a folder from those that lead out of it, by an absolute path, .. or a link.

    The folder may itself be reached through links. `outside="allow"` lets every path pass.
    """

    def __init__(self, folder: Path, outside: Outside) -> None:
        self._allow = outside == "allow"
        self._root = os.path.realpath(folder)
        self._folders: dict[Path, str] = {}

    def leads_out(self, path: Path) -> bool:
        """Whether what the path names in the end lies outside the folder; nothing is opened."""
        if self._allow:
            return False
        try:
            where = self._real(path)
        except (OSError, ValueError):  # names that no file can have: opening it reports that
            return False
        return where != self._root and not where.startswith(self._root.rstrip(os.sep) + os.sep)

    def reason(self, what: str) -> str:
        """Why such a path is not read, `what` being where it would have to lie."""
        return f"leads out of {what} (data.outside=allow accepts it)"

    def _real(self, path: Path) -> str:
        if path.name == ".." or path.is_symlink():
            return os.path.realpath(path)
        # A set has few folders and many files: links are followed once a folder.
        if path.parent not in self._folders:
            self._folders[path.parent] = os.path.realpath(path.parent)
        return os.path.join(self._folders[path.parent], path.name)  # noqa: PTH118 (compared as text)
