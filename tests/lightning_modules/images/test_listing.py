"""Which images a manifest names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.errors import InputError
from lightning_modules.images.listing import ListedImage, Listing, is_month, list_manifest


def _reasons(listing: Listing) -> list[str]:
    return [problem.reason for problem in listing.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("2019-01", "2020-12", "0001-10")),
        *((text, False) for text in ("2019-00", "2019-13", "2019-1", "20190-1", "2019-01-05", "", "2019-01\n")),
        ("\uff12\uff10\uff11\uff19-01", False),
    ],
)
def test_months(text: str, expected: bool) -> None:
    assert is_month(text) is expected


HEADER = "path,label,month,group,split,mask\n"


def _manifest(root: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    (root / "x y.png").write_bytes(b"any")
    (root / "z.png").write_bytes(b"any")
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_manifest_in_full(tmp_path: Path) -> None:
    text = (
        "\ufeff"
        + HEADER
        + 'x y.png,"균열, 작은",2019-01,coil 1,train,z.png\n'
        + f"{tmp_path}/z.png,NA,2019-02,,test,\n\n"
    )
    listing = list_manifest(_manifest(tmp_path, text))
    assert listing.images == [
        ListedImage(tmp_path / "x y.png", "균열, 작은", "2019-01", "coil 1", "train", tmp_path / "z.png"),
        ListedImage(tmp_path / "z.png", "NA", "2019-02", None, "test", None),
    ]
    assert not listing.problems and not listing.notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.tsv", "path\tlabel\nz.png\ta,b\n"),
        ("m.csv", "path;label\nz.png;a,b\n"),
        ("m.csv", 'label,path\r\n"a,b",z.png\r\n'),
    ],
)
def test_separators(tmp_path: Path, name: str, text: str) -> None:
    assert list_manifest(_manifest(tmp_path, text, name)).images == [ListedImage(tmp_path / "z.png", "a,b")]


def test_parquet(tmp_path: Path) -> None:
    import pandas as pd

    _manifest(tmp_path, "")
    path = tmp_path / "m.parquet"
    pd.DataFrame({"path": ["z.png", "x y.png"], "label": [3, 4], "month": ["2019-01", None], "n": [1, 2]}).to_parquet(
        path
    )
    listing = list_manifest(path)
    assert listing.images == [ListedImage(tmp_path / "z.png", "3", "2019-01")]
    assert _reasons(listing) == ["row 2: month ''; a month is YYYY-MM with MM in 01..12"]
    assert listing.notes == ["unknown columns of the manifest ignored: n"]


def test_file_names_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"any")
    listing = list_manifest(_manifest(tmp_path, b"path,label\n\xff.png,a\nz.png,a\r\n"))
    assert [image.path.name for image in listing.images] == [os.fsdecode(b"\xff.png"), "z.png"]
    with pytest.raises(InputError, match=r"row 3: \\x81 is neither UTF-8 nor plainly code page 1252"):
        list_manifest(_manifest(tmp_path, b"path,label\n\xff.png,a\nz.png,\x81\n"))


@pytest.mark.parametrize(
    ("said", "split"),
    [
        ("Train", "train"),
        ("training", "train"),
        ("valid", "val"),
        ("Validation", "val"),
        ("dev", "val"),
        ("TESTING", "test"),
    ],
)
def test_splits_are_called_as_folders_are(tmp_path: Path, said: str, split: str) -> None:
    listing = list_manifest(_manifest(tmp_path, f"path,label,split\nz.png,a,{said}\n"))
    assert [image.split for image in listing.images] == [split] and not listing.problems


@pytest.mark.parametrize(
    ("labels", "refused"),
    [(("crack", "CRACK"), True), (("c r", "c  r"), True), (("Mass", "Maß"), False), (("crack", "crack "), False)],
)
def test_labels_that_differ_by_case_or_blanks_only(tmp_path: Path, labels: tuple[str, str], refused: bool) -> None:
    path = _manifest(tmp_path, f"path,label\nz.png,{labels[0]}\nx y.png,{labels[1]}\n")
    if not refused:
        assert [image.label for image in list_manifest(path).images] == [label.strip() for label in labels]
        return
    with pytest.raises(InputError, match=f"labels '{labels[0]}' and '{labels[1]}' differ by case or blanks only; give"):
        list_manifest(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("gone.png,a", "row 3: no such file: .*gone.png"),
        ("../nowhere/x.png,a", "row 3: ../nowhere/x.png leads out of the manifest.s folder"),
        ("nowhere/x.png,a", "row 3: no such file"),
        (",a", "row 3: empty path"),
        ("x y.png,", "row 3: empty label"),
        ("x y.png", "row 3: empty label"),
        ("./z.png,a", r"row 3: the same path as row 2: \./z.png"),
        ("x y.png,a,2019-13", "row 3: month '2019-13'; a month is YYYY-MM"),
        ("x y.png,a,2019-1", "row 3: month '2019-1'"),
        ("x y.png,a,", "row 3: month ''"),
        ("x y.png,a,2019-01,,dev2", "row 3: split 'dev2'; accepted are train, val, test"),
        ("x y.png,a,2019-01,,", "row 3: split ''"),
        ("x y.png,a,2019-01,,train,no.png", "row 3: no such mask: .*no.png"),
    ],
)
def test_bad_rows_are_numbered(tmp_path: Path, row: str, reason: str) -> None:
    listing = list_manifest(_manifest(tmp_path, HEADER + "z.png,a,2019-01,g,train,z.png\n" + row + "\n"))
    assert len(listing.images) == 1
    import re

    assert any(re.match(reason, found) for found in _reasons(listing)), _reasons(listing)
    assert all("\n" not in str(problem) for problem in listing.problems)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("m.csv", "", "has no column path, label; found nothing; accepted are path, label, month"),
        ("m.csv", "file,label\nx,y\n", "has no column path; found file, label"),
        ("m.csv", "path,label,label\n", "names column label twice"),
        ("m.csv", "path,label\nx,y,z\n", "row 2: 3 cells under 2 columns"),
        ("m.csv", 'path,label\n"x,y\n', "cannot be read as CSV"),
        ("m.csv", b"path,label\nx\0,y\n", "no such file|cannot be read as CSV"),
        ("m.parquet", "path,label\n", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, name: str, text: Any, reason: str) -> None:
    import re

    path = _manifest(tmp_path, text, name)
    try:
        found = _reasons(list_manifest(path))[0]
    except InputError as error:
        found = str(error)
    assert re.search(reason, found) and "\n" not in found


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file; data=manifest reads a CSV, TSV or Parquet file"):
        list_manifest(tmp_path)
