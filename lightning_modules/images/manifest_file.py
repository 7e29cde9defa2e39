"""The rows of a manifest, a CSV, TSV or Parquet file, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lightning_modules.errors import InputError, printable

__all__ = ["COLUMNS", "read_manifest"]

COLUMNS: Final = ("path", "label", "month", "group", "split", "mask")
"""What a manifest may say of an image."""

# A few hundred kilobytes of Parquet can hold billions of equal rows.
_MOST_ROWS: Final = 10_000_000
_MOST_BYTES: Final = 1 << 31

Rows = list[dict[str, str]]


def read_manifest(path: Path) -> tuple[list[str], Rows, int]:
    """Names of all columns, the rows (of `COLUMNS` only where Parquet has others), and the number of the first row.

    Rows are numbered as a spreadsheet shows them (the header is row 1); in Parquet the first row is row 1.

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


def _parquet_rows(path: Path) -> tuple[list[str], Rows]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    _check_number(path, file.metadata.num_rows)
    columns = [str(name) for name in file.schema_arrow.names]
    table = pq.read_table(path, columns=[name for name in columns if name in COLUMNS])
    rows: list[dict[str, Any]] = table.to_pylist()
    return columns, [{k: "" if v is None or v != v else str(v).strip() for k, v in row.items()} for row in rows]


def _text_rows(path: Path) -> tuple[list[str], Rows]:
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
