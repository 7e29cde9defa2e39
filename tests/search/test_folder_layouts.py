"""The layouts of folders that people have: read as they are meant, or refused with a way out that works."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.images.splits import make_splits
from lightning_modules.images.store import load_images
from tests.progress_lines import only_progress

Tree = dict[str, Any]
QUICK = (
    "model=lenet5",
    "data=folder",
    "data.size=[32,32]",
    "search.trials=1",
    "trainer.epochs=1",
    "executor=inline",
    "tracking.report=false",
)
GROUPS = "data.groups=folder"
NFC, NFD = (unicodedata.normalize(form, "균열") for form in ("NFC", "NFD"))
BOTH = {"train": {"ok": 6, "crack": 6}, "test": {"ok": 5, "crack": 5}}


def _flat(tree: Tree, above: str = "") -> dict[str, Any]:
    return {
        key: value
        for name, inside in tree.items()
        for key, value in (
            _flat(inside, f"{above}{name}/") if isinstance(inside, dict) else {above + name: inside}
        ).items()
    }


def _make(root: Path, tree: Tree, make_stripes: Callable[..., Path]) -> Path:
    """Numbers are images in a folder, texts are files."""
    flat = _flat(tree)
    root.mkdir(exist_ok=True)
    make_stripes(root, {name: n for name, n in flat.items() if isinstance(n, int)}, side=16)
    for name, text in flat.items():
        if isinstance(text, str | bytes):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def _accepted(root: Path, cache: Path, path: str = "", source: Any = "folder", **options: Any) -> dict[str, int]:
    """Images by class of what a way out reads, and that they can be split."""
    images = load_images(source, root / path, size=(16, 16), cache=cache, **options)
    make_splits(images.index)
    return images.index.class_counts()


def _table(root: Path, label: int, **more: int) -> str:
    """Names every image in a table, label and more being positions in its path."""
    with (root / "table.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", *more))
        for path in sorted(root.rglob("*.png")):
            parts = path.relative_to(root).parts
            rows.writerow((path.relative_to(root).as_posix(), *(parts[n] for n in (label, *more.values()))))
    return "table.csv"


def _move(root: Path, moves: dict[str, str]) -> None:
    for old, new in moves.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)


# Name: tree, further arguments, words of the one line, and the way out that it names: moves, then how it is read.
Refusal = tuple[Tree, list[str], list[str], dict[str, str], dict[str, Any] | None]
IN_CLASSES = {"ok": {"train": 8, "test": 5}, "crack": {"train": 8, "test": 5}}
MONTHS = {"ok": {"2024-01": 6, "2024-02": 6}, "crack": {"2024-01": 6, "2024-02": 6}}
YOLO = {"images": 6, "labels": {"0.txt": "0 .5 .5 .1 .1"}}
AWAY = "../elsewhere"
AWAY_BOTH = {"ok": AWAY, "crack": AWAY + "/2"}
REFUSED: dict[str, Refusal] = {
    "splits of images without classes": (
        {"train": 6, "test": 6, "train.csv": "id,label\n"}, [],
        ["train", "test", "train/<class>/*", "data=manifest", "path,label,split"],
        {"test": "a", "a": "test/ok", "train": "b", "b": "train/ok", "train/ok/00.png": "train/bad/00.png"},
        {"min_per_class": 1},
    ),
    "the same in a table": (
        {"Train": 6, "Test": 6}, [], ["Test, Train", "data=manifest"], {}, {"table": {"label": 0}},
    ),
    "MVTec without kinds": (
        {"train": 6, "test": 6, "ground_truth": 6}, [], ["test, train", "train/<class>/*"], {}, None,
    ),
    "MVTec": (
        {"train": {"good": 8}, "test": {"good": 6, "cut": 6}, "ground_truth": {"cut": 6}}, [],
        ["train", "'good'", "data.path=", "/test"], {}, {"path": "test"},
    ),
    "ground truth beside classes": (
        {"ok": 6, "crack": 6, "ground_truth": 6}, [], ["ground_truth", "class folders alone"],
        {"ground_truth": AWAY}, {},
    ),
    "validation without test": (
        {"train": {"ok": 9, "crack": 9}, "val": {"ok": 6, "crack": 6}}, [],
        ["train, val", "train and test are needed", "rename"], {"val": "test"}, {},
    ),
    "the same, train alone": (
        {"train": {"ok": 9, "crack": 9}, "valid": {"ok": 6, "crack": 6}}, [], ["data.path=", "/train"], {},
        {"path": "train"},
    ),
    "test without train": (
        {"val": {"ok": 9, "crack": 9}, "test": {"ok": 6, "crack": 6}}, [], ["train and test are needed"],
        {"val": "train"}, {},
    ),
    "train alone": ({"train": {"ok": 9, "crack": 9}}, [], ["/train"], {}, {"path": "train"}),
    "two tests": (
        {"train": {"ok": 9, "crack": 9}, "test_A": {"ok": 1, "crack": 1}, "test_B": {"ok": 1, "crack": 1}}, [],
        ["test_A, test_B, train: splits", "/train reads"], {}, {"path": "train"},
    ),
    "trainval": (
        {"test": {"ok": 7, "crack": 7}, "trainval": {"ok": 6, "crack": 6}}, [],
        ["test, trainval: splits", "/trainval reads"], {"trainval": "train"}, {},
    ),
    "training and dev": (
        {"dev": {"ok": 7, "crack": 7}, "training": {"ok": 6, "crack": 6}}, [], ["/training reads"], {},
        {"path": "training"},
    ),
    "the most images": (
        {"dev": {"ok": 1, "crack": 1}, "test": {"ok": 6, "crack": 6}}, [], ["/test reads"], {}, {"path": "test"},
    ),
    "a class test of groups": (
        {c: {f"coil {n}": 4 for n in range(4)} for c in ("pore", "test")}, [GROUPS],
        ["test: a split by the name that holds images as classes do; rename it", "path,label,group"], {},
        {"table": {"label": 0, "group": 1}},
    ),
    "the same, groups unsaid": (
        {c: {f"coil {n}": 4 for n in range(4)} for c in ("pore", "test")}, [],
        ["train and test are needed", "where test is a class, name each image in a table"], {}, {"table": {"label": 0}},
    ),
    "splits of two domains": (
        {f"{s}{d}": {"ok": 6, "crack": 6} for s in ("train", "test") for d in "AB"}, [], ["split of another name"],
        {}, {"table": {"label": 1}},
    ),
    "a class test with a folder in it": (
        {"ok": 6, "test": {"": 6, "old": 2}}, [], ["test: a split by the name that holds images", "path,label)"], {},
        {"table": {"label": 0}},
    ),
    "the same beside two": (
        {"fail": 6, "pass": 6, "test": {"": 6, "old": 2}}, [], ["test/old", "folder below a class", "set_aside"], {},
        {"on_bad": "set_aside"},
    ),
    "classes that only sound like splits": (
        {c: {"p1": 4, "p2": 4, "p3": 4} for c in ("cold fold", "fold", "invalid", "lap", "latest", "restrained")}, [],
        ["folder below a class", GROUPS], {}, {"groups": "folder"},
    ),
    "a folder in one of these": (
        {"latest": {"": 6, "old": 1}, "test_1": {"": 6, "old": 1}}, [], ["folder below a class", "set_aside"], {},
        {"on_bad": "set_aside"},
    ),
    "folds": ({f"fold{n}": {"ok": 6, "crack": 6} for n in (1, 2)}, [], ["split of another name"], {},
        {"table": {"label": 1}},
    ),
    "a folder around": ({"set": {"ok": 9, "crack": 9}}, [], ["one folder with folders", "/set"], {}, {"path": "set"}),
    "splits in a folder around": (
        {"set": {"train": {"ok": 9, "crack": 9}, "test": {"ok": 5, "crack": 5}}}, [],
        ["one folder with folders", "/set"], {}, {"path": "set"},
    ),
    "a split in a split": (
        {"train": {"train": {"ok": 9, "crack": 9}}, "test": {"test": {"ok": 6, "crack": 6}}}, [],
        ["split below a split"],
        {"train/train": "a", "train": AWAY, "a": "train", "test/test": "b", "test": AWAY + "/2", "b": "test"}, {},
    ),
    "splits of other names": (
        {f"seg_{split}": {f"seg_{split}": {"ok": 9, "crack": 9}} for split in ("train", "test")}, [],
        ["seg_test is a split of another name"],
        {"seg_train/seg_train": "train", "seg_test/seg_test": "test", "seg_train": AWAY, "seg_test": AWAY + "/2"}, {},
    ),
    "anomalies in a test of another name": (
        {"train": {"good": 8}, "validation": {"good": 6}, "test_public": {"good": 6, "bad": 6}}, [],
        ["'good' alone", "/test_public"], {}, {"path": "test_public"},
    ),
    "a class in test alone": (
        {**BOTH, "test": {"ok": 5, "crack": 5, "new": 6}}, [], ["'new'", "none of it in train"],
        {"test/new/00.png": "train/new/00.png"}, {},
    ),
    "something beside the splits": (
        {**BOTH, "unlabeled": 6}, [], ["unlabeled", "beside the splits", "on_bad=set_aside"], {},
        {"on_bad": "set_aside"},
    ),
    "classes beside splits": (
        {**BOTH, "ok": 6, "crack": 6}, [], ["crack", "beside the splits"], {}, {"on_bad": "set_aside"},
    ),
    "the split inside the class": (
        IN_CLASSES, [], ["split below a class", "root/<train|val|test>/<class>/*"],
        {f"{c}/{s}": f"{s}/{c}" for s in ("train", "test") for c in ("ok", "crack")} | AWAY_BOTH, {},
    ),
    "the same with groups": (
        IN_CLASSES, [GROUPS], ["split below a class", "path,label,split"], {}, {"table": {"label": 0, "split": 1}},
    ),
    "the month inside the class": (
        MONTHS, [], ["month below a class", "root/<YYYY-MM>/<class>/*"],
        {f"{c}/2024-0{m}": f"2024-0{m}/{c}" for m in (1, 2) for c in ("ok", "crack")} | AWAY_BOTH, {},
    ),
    "years above months": ({"2023": {"11": 6, "12": 6}, "2024": {"1": 6}}, [], ["month below a class"], {}, None),
    "months with splits": (
        {"2024-01": BOTH, "2024-02": {"train": {"ok": 5, "crack": 5}, "test": {"ok": 5, "crack": 5}}}, [],
        ["split below a month", "path,label,month,split"], {}, {"table": {"label": 2, "month": 0, "split": 1}},
    ),
    "splits with months": (
        {"train": {"2024-01": {"ok": 5, "crack": 5}}, "test": {"2024-02": {"ok": 5, "crack": 5}}}, [],
        ["month below a split", "path,label,month,split"], {}, {"table": {"label": 2, "month": 1, "split": 0}},
    ),
    "YOLO": (
        {"images": {"train": 6, "val": 6}, "labels": {"train": {"0.txt": "0 .5 .5 .1 .1"}}}, [],
        ["images, labels", "one class an image", "root/<class>/*"],
        {"images/train": "ok", "images/val": "crack", "labels": AWAY, "images": AWAY + "/2"}, {},
    ),
    "YOLO as Roboflow writes it": (
        {"train": YOLO, "test": YOLO, "data.yaml": "nc: 1"}, [], ["images, labels", "one class an image"], {}, None,
    ),
    "classes of images beside masks": (
        {"images": {"ok": 6, "crack": 6}, "masks": {"crack": 6}}, [], ["images, masks", "folder of class folders"], {},
        {"path": "images"},
    ),
    "nested folders": (
        {c: {f"coil {n}": 5 for n in range(4)} for c in ("ok", "crack")}, [], ["crack/coil 0", GROUPS], {},
        {"groups": "folder"},
    ),
    "nested beside images": (
        {"ok": 6, "crack": {"": 6, "old": {"0.txt": "x"}}}, [], ["old", "its images up", "on_bad=set_aside"], {},
        {"on_bad": "set_aside"},
    ),
    "case": (
        {"Crack": 6, "crack": 6, "ok": 6}, [], ["'Crack' and 'crack'", "case or blanks"],
        {f"crack/0{n}.png": f"Crack/1{n}.png" for n in range(6)} | {"crack": AWAY}, {},
    ),
    "blanks": ({"Crack": 6, "crack ": 6, "ok": 6}, [], ["'Crack' and 'crack '"], {"crack ": "hairline crack"}, {}),
    "case in another split": (
        {**BOTH, "test": {"ok": 5, "Crack": 5}}, [], ["'Crack' and 'crack'"], {"test/Crack": "test/crack"}, {},
    ),
    "composed and decomposed": ({NFC: 6, NFD: 6, "ok": 6}, [], [ascii(NFC), ascii(NFD)], {NFD: "crack"}, {}),
    "archives": ({"ok.zip": "x", "crack.tar.gz": "x"}, [], ["no class folders", ".gz, .zip", "unpack"], {}, None),
    "archives in classes": (
        {"ok": 6, "bad": 6, "crack": {"a.zip": "x"}}, [], ["crack", "1 file without", ".zip", "unpack"], {}, None,
    ),
    "no picture without suffix": (
        {"ok": 6, "bad": 6, "crack": {"a": "BM x", "b": ""}}, [], ["crack", "2 files without an image suffix"], {},
        None,
    ),
}  # fmt: skip


CLUTTER = {
    "@eaDir": {"00.png": 2}, "Thumbs.db": "x", "._00.png": "x", "#recycle": 1,
    "lost+found": 1, ".ipynb_checkpoints": 1, "__MACOSX": {"ok": 1}, "$RECYCLE.BIN": 1, "notes.txt": "x",
    "System Volume Information": {"x.dat": "x"}, "desktop.ini": "x", ".Trash-1000": 1, ".snapshot": {"ok": 1},
    "@Recycle": 1,
}  # fmt: skip


def test_splits_are_kept_and_what_systems_add_is_skipped(
    make_stripes: Callable[..., Path],
    run_search_warm: Callable[..., SimpleNamespace],
    tmp_path: Path,
    tracking_root: Path,
) -> None:
    split = {"ok": 6, "crack": 6}
    root = _make(tmp_path / "root", {"Training": split, "VALID": split, "test_set": split}, make_stripes)
    (root / "VALID" / "ok" / "05.png").rename(root / "VALID" / "ok" / "without suffix")
    for folder in (root, root / "Training", root / "Training" / "ok"):
        _make(folder, CLUTTER, make_stripes)
    outcome = run_search_warm(*QUICK, f"data.path={root}", f"tracking.root={tracking_root}")
    assert outcome.code == 0, outcome.err
    assert "Images: 36 in 2 classes; 12 train, 12 validation, 12 test." in outcome.out
    assert "  Split as the folders say: 12 train, 12 val, 12 test.\n" in outcome.out
    said = " ".join(outcome.out.split())
    assert "hidden and system files and folders skipped (" in said
    assert "3 files without an image suffix (.txt) skipped" in said


@pytest.mark.parametrize(("tree", "arguments", "words", "moves", "reading"), REFUSED.values(), ids=list(REFUSED))
def test_refused_with_a_way_out(
    tree: Tree,
    arguments: list[str],
    words: list[str],
    moves: dict[str, str],
    reading: dict[str, Any] | None,
    make_stripes: Callable[..., Path],
    run_search_warm: Callable[..., SimpleNamespace],
    tmp_path: Path,
) -> None:
    root = _make(tmp_path / "root", tree, make_stripes)
    work = tmp_path / "work"
    work.mkdir()
    outcome = run_search_warm(*QUICK, f"data.path={root}", *arguments, cwd=work)
    first = outcome.err.splitlines()[0] if outcome.err else ""
    assert outcome.code == 2 and only_progress(outcome.out) and first.startswith("search: "), outcome
    assert all(word in first for word in words), first
    assert list(work.iterdir()) == []
    _move(root, moves)
    if reading is not None:
        if "table" in reading:
            reading = {"path": _table(root, **reading["table"]), "source": "manifest"}
        assert len(_accepted(root, work, **reading)) >= 2
