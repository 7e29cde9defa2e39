"""Which images a folder holds."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from lightning_modules.images.folders import Skipped, list_folder, walk_images
from lightning_modules.images.listing import Listing

CLUTTER = [
    *("@eaDir", "#recycle", "lost+found", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", ".DS_Store", "._x.png"),
    *("desktop.ini", "$RECYCLE.BIN", "System Volume Information", ".Trash-1000", ".snapshot", "@Recycle", "THUMBS.DB"),
]


def _seen(listing: Listing) -> list[tuple[str | None, ...]]:
    return sorted({(i.month, i.label, i.group) for i in listing.images}, key=str)


def _reasons(listing: Listing) -> list[str]:
    return [problem.reason for problem in listing.problems]


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
        (["Mass", "Maß"], [(None, "Mass"), (None, "Maß")], []),
        (["결함 1", "b b"], [(None, "b b"), (None, "결함 1")], []),
    ],
)
def test_folder_layouts(make_folder, folders: list[str], seen: Any, reasons: list[str]) -> None:
    listing = list_folder(make_folder(dict.fromkeys(folders, 1)))
    assert [s[:2] for s in _seen(listing)] == seen
    assert len(listing.problems) == len(reasons)
    assert all(reason in found for reason, found in zip(reasons, _reasons(listing), strict=True))


@pytest.mark.parametrize(
    ("folders", "groups", "seen", "notes"),
    [
        (
            ["Train/a", "TRAINING SET/b", "dev/a", "Valid/b", "test2017/a", "Testing/b"],
            "none",
            [("train", "a"), ("train", "b"), ("val", "a"), ("val", "b"), ("test", "a"), ("test", "b")],
            [
                f"folders {two} are read together as {split}"
                for two, split in (
                    ("Testing, test2017", "test"),
                    ("TRAINING SET, Train", "train"),
                    ("Valid, dev", "val"),
                )
            ],
        ),
        (
            ["train/a/coil 1", "train/b/coil 1", "test/a/coil 2"],
            "folder",
            [("train", "a"), ("train", "b"), ("test", "a")],
            [],
        ),
        (
            ["ok", "test", "scratch"],
            "none",
            [(None, "ok"), (None, "scratch"), (None, "test")],
            ["folder test is read as"],
        ),
        (
            ["car", "Train/g", "bus/g", "truck/g", "car/g"],
            "folder",
            [(None, "Train")],
            ["folder Train is read as a class"],
        ),
        (["2019-01/ok", "2019-01/val", "2019-02/x"], "none", [(None, "val")], ["folder val is read as a class"]),
        (["test piece", "training gap", "trains", "tests"], "none", [(None, "test piece"), (None, "trains")], []),
        (["train/a", "train/b", "test/a", "test/train"], "none", [("test", "train")], []),
    ],
)
def test_splits(make_folder, folders: list[str], groups: Any, seen: Any, notes: list[str]) -> None:
    listing = list_folder(make_folder(dict.fromkeys(folders, 1)), groups)
    found = {(image.split, image.label) for image in listing.images}
    assert found >= set(seen) and len(listing.images) + len(listing.problems) == len(folders)
    assert all(note in said for note, said in zip(notes, listing.notes, strict=True))


def test_image_and_mask_are_classes_unless_their_files_are_pairs(make_folder) -> None:
    root = make_folder({"image": 3, "mask": 3, "ok": 3})
    with pytest.raises(InputError, match="image, mask: images and boxes or masks"):
        list_folder(root)
    for file in root.glob("mask/*"):
        file.rename(file.with_stem(file.stem + "_mask"))
    with pytest.raises(InputError, match="image, mask: images and boxes or masks"):
        list_folder(root)
    for number, file in enumerate(root.glob("mask/*")):
        file.rename(file.with_stem(f"scan {number}"))
    listing = list_folder(root)
    assert len(listing.images) == 9 and not listing.problems
    assert listing.notes == ["image, mask: read as classes, as they hold no pairs of files"]
    (root / "mask" / "ok").mkdir()
    with pytest.raises(InputError, match="image, mask: images and boxes or masks"):
        list_folder(root)


def test_pictures_without_a_suffix_are_read(make_folder, picture, encode) -> None:
    root = make_folder({"a": 1, "b": 1})
    kinds = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
    for number, kind in enumerate(kinds):
        (root / "a" / (kind if number else "scan.0001")).write_bytes(encode(picture(number), kind))
    for name, text in (("BMW", "BMW notes"), ("RIFF", "RIFF of a guitar"), ("empty", ""), ("notes", "x" * 99)):
        (root / "a" / name).write_text(text)
    os.mkfifo(root / "a" / "pipe")
    (root / "a" / "nowhere").symlink_to("gone")
    (root / "a" / "outside").symlink_to("/dev/zero")
    listing = list_folder(root)
    assert len(listing.images) == 2 + len(kinds)
    assert listing.notes == ["6 files without an image suffix skipped"]
    assert len(listing.problems) == 1 and "leads out" in listing.problems[0].reason


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "b/g"]), st.sampled_from(CLUTTER), st.booleans()), max_size=6))
def test_what_systems_add_changes_nothing(placed: list[tuple[str, str, bool]]) -> None:
    """Whatever stands where: the same images are listed, for training and for predicting."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("a/g/1.png", "b/g/2.png", "b/h/3.jpg"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("x")
        before = sorted(walk_images(root, Skipped()))
        for where, name, is_folder in placed:
            place = root / where / name
            if not place.exists():
                (place / "train").mkdir(parents=True) if is_folder else place.write_text("x")
                (place / "train" / "y.png").write_text("x") if is_folder else None
        listing, skipped = list_folder(root, "folder"), Skipped()
        assert sorted(walk_images(root, skipped)) == before == sorted(str(image.path) for image in listing.images)
        assert not listing.problems and listing.notes == skipped.notes() and len(listing.notes) == bool(placed)


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
    assert _reasons(list_folder(root, "folder")) == ["image outside any group folder"]


def test_labels_of_two_normal_forms_are_one(make_folder) -> None:
    names = sorted({unicodedata.normalize(form, "균열") for form in ("NFC", "NFD")})
    assert len(names) == 2
    root = make_folder({f"2019-0{month}/{name}": 1 for month, name in enumerate([*names, "b"], 1)})
    assert _seen(list_folder(root)) == [("2019-01", "균열", None), ("2019-02", "균열", None), ("2019-03", "b", None)]
    with pytest.raises(InputError, match="differ by Unicode form only"):
        list_folder(make_folder(dict.fromkeys([f"2019-01/{name}" for name in names], 1)))


def test_names_that_are_not_utf8_work(make_folder, picture, encode) -> None:
    root = make_folder({"a": 1, "b": 1})
    folder = root / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(encode(picture(9)))
    listing = list_folder(root)
    assert {image.label for image in listing.images} == {"a", "b", r"caf\xe9"}


def test_what_is_no_image_is_ignored_noted_or_reported(make_folder) -> None:
    root = make_folder({"a": 1, "b": 1, "c": 0, ".hidden": 1, "__MACOSX": 1})
    for name in (
        "Thumbs.db",
        ".DS_Store",
        "a/.x.png",
        "a/._x.png",
        "a/desktop.ini",
        "a/notes.txt",
        "b/x.json",
        "readme.md",
    ):
        (root / name).write_text("x")
    for name in ("a/scan.gif", "a/photo.HEIC"):
        (root / name).write_text("x")
    (root / "top.png").write_text("x")
    listing = list_folder(root)
    assert {image.path.name for image in listing.images} == {"000.png", "scan.gif", "photo.HEIC"}
    assert listing.notes == [
        "7 hidden and system files and folders skipped (.DS_Store, ._*, .hidden, .x.png, Thumbs.db, ...)",
        "3 files without an image suffix (.json, .md, .txt) skipped",
    ]
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
