"""Tables of results: what is written is read back, and no spreadsheet runs it."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from search.command_line.csv_table import TableWriter

CELLS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("=+-@\t\r\n'\",;"), max_size=8)
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=4))


def written(*rows: list[str]) -> str:
    file = io.StringIO(newline="")
    table = TableWriter(file)
    for row in rows:
        table.write_row(row)
    return file.getvalue()


def read(text: str) -> list[list[str]]:
    return [[cell.removeprefix("'") for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]


@given(TABLES)
@example([["'=x", "'", "''"], ["-1e-05", "-1", "=1"], ["\r", "\r\n", ""]])
def test_what_is_written_is_read_back(rows: list[list[str]]) -> None:
    assert read(written(*rows)) == rows


@given(CELLS)
def test_only_numbers_begin_like_formulas(cell: str) -> None:
    ((found,),) = csv.reader(io.StringIO(written([cell]), newline=""))
    if found.startswith(tuple("=+-@\t\r\n")):
        assert float(found) <= 0


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (["a b", "", "c"], 'a b,"",c\n'),
        (["x;=cmd|'a'!A0;", "y\t=1"], '"x;=cmd|\'a\'!A0;","y\t=1"\n'),  # where ; or a tab separates cells
        (["a,b", 'c"d', "e\rf", "g\nh"], '"a,b","c""d","e\rf","g\nh"\n'),
        (["=1", "+1", "-1", "-a", "@a", "\uff1da"], "'=1,'+1,-1,'-a,'@a,'\uff1da\n"),
        (["\ta", "\ra", "'a"], "\"'\ta\",\"'\ra\",''a\n"),
        (["caf\udce9"], "caf\\xe9\n"),
    ],
)
def test_how_cells_are_written(cells: list[str], line: str) -> None:
    assert written(cells) == line
