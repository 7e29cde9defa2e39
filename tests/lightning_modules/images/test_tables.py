"""What is written into a table, however it is written, is what is read from it."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from lightning_modules.images.tables import read_table, table_path

_CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(",;\t|\"'\n\\"), max_size=6)
_ROWS = st.lists(st.tuples(st.text("abü /.", min_size=1).filter(str.strip), _CELL, _CELL), min_size=1, max_size=4)


def read(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    notes: list[str] = []
    _, rows = read_table(path, "list ", ("path", "label"), ("month",), on_note=notes.append)
    return [row for _, row in rows], notes


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_ROWS, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(),
       st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))  # fmt: skip
@example([("a", "sep=;", "\ufeff")], ";", "\n", True, True, "utf-16")
@example([("a", ' "', '" ')], ",", "\r\n", False, False, "utf-8")
def test_text_reads_back(
    tmp_path: Path, rows: list[tuple[str, ...]], separator: str, end: str, quote: bool, told: bool, encoding: str
) -> None:
    file = io.StringIO(newline="")
    file.write(f"sep={separator}{end}" if told else "")
    quoting = csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL
    writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
    # A blank at the beginning of a cell that is not quoted would hide the quote behind it.
    stripped = [[cell.strip() for cell in row] for row in rows]
    writer.writerows([[" Path", "LABEL", "month "], *(rows if quote else stripped)])
    table = tmp_path / "t.csv"
    table.write_bytes(file.getvalue().encode(encoding))
    texts = [(path, *(unicodedata.normalize("NFC", cell) for cell in cells)) for path, *cells in stripped]
    assert read(table) == ([dict(zip(("path", "label", "month"), row, strict=True)) for row in texts], [])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 2], ["1", "2"]),
        ([1, None], ["1", ""]),
        ([1.0, None], ["1", ""]),  # as pandas writes whole numbers where one is missing
        ([1.5, float("nan")], ["1.5", ""]),
        (["01", "1.0"], ["01", "1.0"]),
        (["None", "NA"], ["None", "NA"]),
        ([True, False], ["True", "False"]),
    ],
)
def test_labels_of_parquet(tmp_path: Path, values: list[Any], labels: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for column in (pa.array(values), pa.array(values).dictionary_encode()):
        pq.write_table(pa.table({"path": ["a", "b"], "label": column}), tmp_path / "t.parquet")
        assert [row["label"] for row in read(tmp_path / "t.parquet")[0]] == labels
    csv_labels = ["1", "1.0", "01", "NA", "None", "null"]
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"x,{label}\n" for label in csv_labels))
    assert [row["label"] for row in read(tmp_path / "t.csv")[0]] == csv_labels


@pytest.mark.parametrize(
    ("line", "label"),
    [
        (b"x,Ri\xdf", "Riß"),
        (b"x,d\xe9fauts cr\xe9\xe9s", "défauts créés"),
        (b"x,100 \xb0C", "100 °C"),
        (b"x,\xc8\xec", None),  # pairs alone may be Korean
        (b"x,Ri\x81", None),
        (b"x,\xc1\xf0\xe0\xea\xe0", None),  # Russian
        (b"x,Ri\xdf\ny,Ri\xc3\x9f", None),
        (b"\xef\xbb\xbfx,Ri\xdf", None),  # marked as UTF-8
    ],
)
def test_code_pages(tmp_path: Path, line: bytes, label: str | None) -> None:
    table = tmp_path / "t.csv"
    mark, line = line[: 3 * line.startswith(b"\xef\xbb\xbf")], line.removeprefix(b"\xef\xbb\xbf")
    table.write_bytes(mark + b"path,label\n" + line)
    if label is None:
        with pytest.raises(InputError, match=r"row 2: .* is neither UTF-8 nor plainly code page 1252: save it as CSV"):
            read(table)
    else:
        rows, notes = read(table)
        assert rows == [{"path": "x", "label": label}]
        assert notes == [f"list {table} is not UTF-8: read as code page 1252 (Windows), but for names of files of "
                         "these very bytes"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("a/b.png", "a\\b.png"),
        ("a\\b.png", "a\\b.png"),
        ("a/b c#1%.png", "file://{folder}/a/b%20c%231%25.png"),
        ("a/b.png", "FILE://localhost{folder}/a/b.png"),
        (" a.png ", " a.png "),
        ("u\u0308.png", "\u00fc.png"),
        ("\u00fc.png", "u\u0308.png"),
        ("a:b.png", "a:b.png"),
        ("\udce9.png", "file://{folder}/%e9.png"),
    ],
)
def test_paths(tmp_path: Path, name: str, cell: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert table_path(tmp_path, cell.format(folder=tmp_path)).samefile(tmp_path / name)
    table = tmp_path / "t.csv"
    table.write_text(f'path,label\n"{cell.format(folder=tmp_path)}",a\n')
    assert table_path(tmp_path, read(table)[0][0]["path"]).samefile(tmp_path / name)
