"""Tables as spreadsheets and programs write them: commands read the same from them, or refuse with the same words."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_modules.errors import InputError
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, save_model

Rows = list[list[str]]
Reading = list[tuple[str, str]]

HEADER = ["path", "label", "month", "xmin", "ymin", "xmax", "ymax"]
LABELS = ("Riß", "gut, grün")
ROWS = [
    [f"bilder/Prüfung {kind} {number}.png", label, f"2024-0{1 + number % 2}", "1", "2", "5", "6"]
    for kind, label in enumerate(LABELS)
    for number in range(10)  # fewer cannot be split by month
]


def text(rows: Rows, separator: str = ",", end: str = "\n") -> str:
    cells = [[f'"{c}"' if re.search('[,;\t"]', c) else c for c in row] for row in rows]
    return "".join(separator.join(row) + end for row in cells)


def parquet(rows: Rows, **changed: Callable[[str], Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    header, *cells = rows
    columns = {name: [changed.get(name, str)(row[at]) for row in cells] for at, name in enumerate(header)}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def each(rows: Rows, column: str, change: Callable[[str], str]) -> Rows:
    at = rows[0].index(column)
    return [rows[0], *([*row[:at], change(row[at]), *row[at + 1 :]] for row in rows[1:])]


def _nfd(cell: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFD", cell)


Variation = Callable[[Rows, Path], str | bytes]
VARIATIONS: dict[str, tuple[str, Variation]] = {
    "as it should be": ("t.csv", lambda rows, _: text(rows)),
    "semicolons": ("t.csv", lambda rows, _: text(rows, ";")),
    "tabs": ("t.tsv", lambda rows, _: text(rows, "\t")),
    "tabs in a file named csv": ("t.csv", lambda rows, _: text(rows, "\t")),
    "text file": ("t.txt", lambda rows, _: text(rows, "\t")),
    "upper case in the file's name": ("T.CSV", lambda rows, _: text(rows)),
    "line ends of Windows": ("t.csv", lambda rows, _: text(rows, end="\r\n")),
    "line ends of old Macs": ("t.csv", lambda rows, _: text(rows, end="\r")),
    "no line end at the end": ("t.csv", lambda rows, _: text(rows)[:-1]),
    "empty lines at the end": ("t.csv", lambda rows, _: text(rows) + "\n\n \n,,,\n"),
    "empty lines between and before": ("t.csv", lambda rows, _: "\n" + text(rows, end="\n\n")),
    "separators left at line ends": ("t.csv", lambda rows, _: text(rows, end=",,,\n")),
    "separators left in the rows alone": ("t.csv", lambda rows, _: text(rows[:1]) + text(rows[1:], end=",,,\n")),
    "mark of UTF-8": ("t.csv", lambda rows, _: codecs.BOM_UTF8 + text(rows).encode()),
    "two marks of UTF-8": ("t.csv", lambda rows, _: codecs.BOM_UTF8 * 2 + text(rows).encode()),
    "bars": ("t.csv", lambda rows, _: text(rows, "|")),
    "UTF-16 as Excel's Unicode text": ("t.txt", lambda rows, _: text(rows, "\t", "\r\n").encode("utf-16")),
    "UTF-16, high byte first": ("t.csv", lambda rows, _: codecs.BOM_UTF16_BE + text(rows).encode("utf-16-be")),
    "code page 1252": ("t.csv", lambda rows, _: text(rows, ";", "\r\n").encode("cp1252")),
    "Excel's sep=": ("t.csv", lambda rows, _: "sep=;\r\n" + text(rows, ";", "\r\n")),
    "sep= in UTF-16": ("t.csv", lambda rows, _: ('"sep=;"\r\n' + text(rows, ";", "\r\n")).encode("utf-16")),
    "all cells quoted": (
        "t.csv",
        lambda rows, _: "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows),
    ),
    "blanks around names and cells": (
        "t.csv",
        lambda rows, _: "".join(" , ".join(f'"{c}"' if "," in c else f" {c} " for c in r) + "\n" for r in rows).replace(
            '" ,', '",'
        ),
    ),
    "names of columns in another case": ("t.csv", lambda rows, _: text([[c.title() for c in rows[0]], *rows[1:]])),
    "a column without a name": (
        "t.csv",
        lambda rows, _: text([["", *rows[0]], *([str(n), *row] for n, row in enumerate(rows[1:]))]),
    ),
    "other columns, in another order": (
        "t.csv",
        lambda rows, _: text([["operator", *rows[0][::-1]], *(["x;y;z", *row[::-1]] for row in rows[1:])]),
    ),
    "backslashes": ("t.csv", lambda rows, _: text(each(rows, "path", lambda p: p.replace("/", "\\")))),
    "./ and //": ("t.csv", lambda rows, _: text(each(rows, "path", lambda p: f"./{p.replace('/', '//')}"))),
    "absolute paths": ("t.csv", lambda rows, root: text(each(rows, "path", lambda p: str(root / p)))),
    "addresses file://": ("t.csv", lambda rows, root: text(each(rows, "path", lambda p: (root / p).as_uri()))),
    "letters and marks apart": ("t.csv", lambda rows, _: text(each(each(rows, "path", _nfd), "label", _nfd))),
    "Parquet": ("t.parquet", lambda rows, _: parquet(rows, xmin=int, ymin=float)),
    "Parquet in a file named csv": ("t.csv", lambda rows, _: parquet(rows)),
    "Parquet with names in another case": ("t.pq", lambda rows, _: parquet([[c.upper() for c in rows[0]], *rows[1:]])),
    "Parquet of bytes": ("t.parquet", lambda rows, _: parquet(rows, path=str.encode, label=str.encode)),
}

BAD: dict[str, tuple[str, str | bytes, str]] = {
    "no row": ("t.csv", "path,label,month,xmin,ymin,xmax,ymax\n", "holds no row below its names of columns"),
    "nothing": ("t.csv", "", "has no column path"),
    "no such columns": ("t.csv", "file;class\nx.png;a\n", "has no column path.*; found file, class; accepted are path"),
    "the same column twice": ("t.csv", text([[*HEADER, "Path "]]), "names column path twice"),
    "a cell too many": ("t.csv", text([HEADER, [*ROWS[0], "more"]]), "row 2: 8 cells under 7 columns"),
    "a row of no file": (
        "t.csv",
        text([HEADER, *ROWS, ["a\0b.png", *ROWS[0][1:]]]),
        "row 22: (no such file|a NUL byte)",
    ),
    "a path that is empty": ("t.csv", text([HEADER, *ROWS, ["", *ROWS[0][1:]]]), "row 22: empty path"),
    "a quote that does not close": ("t.csv", text([HEADER, *ROWS])[:-2] + '"6\n', "cannot be read as CSV: "),
    "a spreadsheet": ("t.xlsx", b"PK\x03\x04 and so on", "is a spreadsheet or an archive.*: save it as CSV UTF-8"),
    "a spreadsheet named csv": ("t.csv", b"PK\x03\x04 and so on", "is a spreadsheet or an archive"),
    "an old spreadsheet": ("t.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a spreadsheet or an archive"),
    "compressed": ("t.csv", b"\x1f\x8b\x08", "is a spreadsheet or an archive"),
    "UTF-16 without its mark": (
        "t.csv",
        text([HEADER, *ROWS]).encode("utf-16-le"),
        "NUL bytes.*: save it as CSV UTF-8",
    ),
    "half a character of UTF-16": ("t.csv", text([HEADER, *ROWS]).encode("utf-16")[:-1], "cannot be read as CSV"),
    "Korean code page": (
        "t.csv",
        text([HEADER, ["긁힘.png", *ROWS[0][1:]]]).encode("cp949", "replace"),
        "row 2: .*neither",
    ),
    "Russian code page": ("t.csv", text([HEADER, ["Брак", "a", *ROWS[0][2:]]]).encode("cp1251"), "row 2: .*neither"),
    "code page of DOS": ("t.csv", text([HEADER, *ROWS]).encode("cp850"), "row 2: .* is neither UTF-8 nor plainly code"),
    "code page of old Macs": (
        "t.csv",
        text([HEADER, *ROWS]).encode("mac_roman"),
        "neither UTF-8 nor plainly code page",
    ),
    "two encodings": (
        "t.csv",
        text([HEADER, *ROWS[:4]]).encode() + text(ROWS[4:]).encode("cp1252"),
        "row 6: .* is neither UTF-8 nor plainly code page 1252: save it as CSV UTF-8",
    ),
    "no Parquet": ("t.parquet", text([HEADER, *ROWS]), "cannot be read as Parquet: "),
    "Parquet cut short": ("t.parquet", parquet([HEADER, *ROWS])[:-20], "cannot be read as Parquet: "),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, and a network for two classes."""
    root = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    (root / "bilder").mkdir()
    for row in ROWS:
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / row[0])
    net = backbones.build("lenet5", classes=2, size=(32, 32), weights="none")
    save_model(root / "model", TrainedModel(net, ModelCard("lenet5", LABELS, (32, 32), "stretch", 255, 10_000, 0, {})))
    return root


@pytest.fixture
def commands(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[Path], int]]:
    """Each command as far as it reads images: what it has read then stands in its attribute `read`."""
    import search.explain.streaming
    import search.predict.run
    import search.trial.preparation
    from search.__main__ import main as search_main
    from search.explain.__main__ import main as explain_main
    from search.predict.__main__ import main as predict_main
    from search.retrain.__main__ import main as retrain_main

    monkeypatch.chdir(tmp_path)
    found: dict[str, Reading] = {}

    def stop(read: Reading) -> None:
        found["last"] = [(str(Path(path).resolve().relative_to(folder.resolve())), label) for path, label in read]
        raise InputError("all read")

    real = search.trial.preparation.load_images

    def load_images(*arguments: Any, **named: Any) -> None:
        images = real(*arguments, **named)
        print(*images.index.notes)
        stop(sorted((str(one.path), one.label) for one in images.index.records))

    def predict_images(model: Any, images: Any, arguments: Any) -> None:
        stop([(str(one.path), "") for one in images])

    def explain_stream(subject: Any, paths: Any, arguments: Any, annotations: Any, *others: Any) -> None:
        assert all(one.boxes == [(1, 2, 5, 6)] for one in annotations.values())
        stop([(str(path), str(annotations[path.resolve()].label)) for path in paths])

    monkeypatch.setattr(search.trial.preparation, "load_images", load_images)
    monkeypatch.setattr(search.predict.run, "predict_images", predict_images)
    monkeypatch.setattr(search.explain.streaming, "Stream", explain_stream)
    shared = ["data=manifest", "model=lenet5", "data.size=[32,32]", "data.min_per_class=2", "executor.threads=1",
              f"tracking.root={folder / 'mlruns'}"]  # fmt: skip

    def command(main: Callable[[list[str]], int], *words: str) -> Callable[[Path], Reading]:
        def run(table: Path) -> Reading:
            found.clear()
            assert main([word.format(table) for word in words]) == 2
            return found.get("last", [])

        return run

    model = f"model={folder / 'model'}"
    return {  # type: ignore[return-value]
        "search": command(search_main, "data.path={}", *shared),
        "retrain": command(retrain_main, "data.path={}", *shared),
        "predict": command(predict_main, "images={}", model),
        "explain": command(explain_main, "images={}", "boxes={}", "target=true", model),
    }


@pytest.mark.parametrize("variation", VARIATIONS)
def test_every_command_reads_the_same(
    variation: str, folder: Path, commands: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    name, write = VARIATIONS[variation]
    written = write([HEADER, *ROWS], folder.resolve())
    table = folder / name
    table.write_bytes(written if isinstance(written, bytes) else written.encode())
    expected = [(row[0], row[1]) for row in ROWS]
    for program, command in commands.items():
        read = command(table)
        said = capsys.readouterr()
        assert read == [(path, "" if program == "predict" else label) for path, label in expected], (program, said)
        told = "is not UTF-8: read as code page 1252 (Windows)" in said.err + said.out
        assert told == (variation == "code page 1252"), (program, said)
    table.unlink()


@pytest.mark.parametrize("variation", BAD)
def test_every_command_refuses_with_the_same_words(
    variation: str, folder: Path, commands: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, written, words = BAD[variation]
    table = folder / name
    table.write_bytes(written if isinstance(written, bytes) else written.encode())
    for program, command in commands.items():
        assert command(table) == []
        said = capsys.readouterr()
        assert "Traceback" not in said.out and re.fullmatch(f"{program}: .*{re.escape(name)}.*{words}.*\n", said.err), (
            said
        )
    table.unlink()
    assert list(tmp_path.iterdir()) == []
