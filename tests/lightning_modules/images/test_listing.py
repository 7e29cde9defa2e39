"""Which images a folder or a manifest names."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.errors import InputError
from lightning_modules.images.listing import ListedImage, Listing, is_month, list_folder, list_manifest


def _seen(listing: Listing) -> list[tuple[str | None, ...]]:
    return sorted({(i.month, i.label, i.group) for i in listing.images}, key=str)


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


@pytest.mark.parametrize(
    ("folders", "seen", "reasons"),
    [
        (["a", "b"], [(None, "a"), (None, "b")], []),
        (["2019", "2020"], [(None, "2019"), (None, "2020")], []),
        (["0", "1"], [(None, "0"), (None, "1")], []),
        (["2019-01/a", "2019-02/b"], [("2019-01", "a"), ("2019-02", "b")], []),
        (["2019-01/a", "2019-13/a"], [("2019-01", "a")], ["not a month; a month is YYYY-MM"]),
        (["2019-01/a", "2019-1/a"], [("2019-01", "a")], ["not a month"]),
        (["2019-01-02/a", "2019-02/a"], [("2019-02", "a")], ["not a month"]),
        (["2019-01/a", "2019-02/b", "old/a"], [("2019-01", "a"), ("2019-02", "b")], ["folder beside months"]),
        (["a", "b", "2019-01/a"], [(None, "a"), (None, "b")], ["looks like a month beside class folders"]),
        (["결함 1", "b b"], [(None, "b b"), (None, "결함 1")], []),
    ],
)
def test_folder_layouts(make_folder, folders: list[str], seen: Any, reasons: list[str]) -> None:
    listing = list_folder(make_folder(dict.fromkeys(folders, 1)))
    assert [s[:2] for s in _seen(listing)] == seen
    assert len(listing.problems) == len(reasons)
    assert all(reason in found for reason, found in zip(reasons, _reasons(listing), strict=True))


def test_groups_are_a_level_below_the_class(make_folder) -> None:
    root = make_folder({"2019-01/a/coil 1": 1, "2019-01/a/coil 2": 2, "2019-01/b/coil 1": 1})
    listing = list_folder(root, "folder")
    assert _seen(listing) == [
        ("2019-01", "a", "coil 1"),
        ("2019-01", "a", "coil 2"),
        ("2019-01", "b", "coil 1"),
    ]
    assert not listing.problems
    assert "data.groups=folder reads that level as groups" in _reasons(list_folder(root))[0]


def test_an_image_without_its_group_folder_is_a_problem(make_folder) -> None:
    root = make_folder({"a/x": 1, "b/x": 1, "a": 1})
    assert _reasons(list_folder(root, "folder")) == ["image outside any class folder"]


def test_labels_of_two_normal_forms_are_one(make_folder) -> None:
    names = {unicodedata.normalize(form, "균열") for form in ("NFC", "NFD")}
    assert len(names) == 2
    listing = list_folder(make_folder(dict.fromkeys([*names, "b"], 1)))
    assert {image.label for image in listing.images} == {"균열", "b"}
    assert len(listing.images) == 3


def test_names_that_are_not_utf8_work(make_folder, picture, encode) -> None:
    root = make_folder({"a": 1, "b": 1})
    folder = root / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(encode(picture(9)))
    listing = list_folder(root)
    assert {image.label for image in listing.images} == {"a", "b", r"caf\xe9"}


def test_what_is_no_image_is_ignored_noted_or_reported(make_folder) -> None:
    root = make_folder({"a": 1, "b": 1, "c": 0, ".hidden": 1, "__MACOSX": 1})
    for name in ("Thumbs.db", ".DS_Store", "a/.x.png", "a/desktop.ini", "a/notes.txt", "b/x.json", "readme.md"):
        (root / name).write_text("x")
    for name in ("a/scan.gif", "a/photo.HEIC"):
        (root / name).write_text("x")
    (root / "top.png").write_text("x")
    listing = list_folder(root)
    assert {image.path.name for image in listing.images} == {"000.png", "scan.gif", "photo.HEIC"}
    assert listing.notes == ["3 files without an image suffix skipped"]
    assert sorted(_reasons(listing)) == ["class folder without images", "image outside any class folder"]


def test_a_class_may_be_absent_from_a_month(make_folder) -> None:
    listing = list_folder(make_folder({"2019-01/a": 1, "2019-01/b": 0, "2019-02/b": 1, "2019-02/c": 0}))
    assert [problem.path.split("/")[-1] for problem in listing.problems] == ["c"]


def test_loops_of_links_end(make_folder) -> None:
    root = make_folder({"a/g": 1, "b/g": 1})
    (root / "loop").symlink_to(root)
    (root / "a" / "up").symlink_to(root / "a")
    (root / "b" / "self").symlink_to("self")
    (root / "b" / "gone.png").symlink_to("nowhere")
    for groups in ("none", "folder"):
        listing = list_folder(root, groups)  # type: ignore[arg-type]
        assert any("link to a folder that is already listed" in reason for reason in _reasons(listing))
        assert len({image.path.resolve() for image in listing.images}) == len(listing.images)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.write_text("x"), "is not a folder"),
        (lambda path: path.mkdir(), "holds no class folders; accepted are"),
        (lambda path: (path.mkdir(), (path / "x.png").write_text("x")), "holds no class folders; image outside"),
    ],
)
def test_what_is_no_folder_of_classes_is_refused(tmp_path: Path, make: Any, reason: str) -> None:
    make(tmp_path / "root")
    with pytest.raises(InputError, match=rf"data\.path=.*root.*{reason}"):
        list_folder(tmp_path / "root")


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
        ("x y.png,a,2019-01,,dev", "row 3: split 'dev'; accepted are train, val, test"),
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
