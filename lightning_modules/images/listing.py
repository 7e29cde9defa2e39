"""Which images a manifest names, before any of them is opened, and what every listing of images holds."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from lightning_modules.errors import InputError, Problem, printable
from lightning_modules.images.tables import exists, read_table, table_path

__all__ = [
    "MONTH_RULE",
    "ListedImage",
    "Listing",
    "Outside",
    "Places",
    "differing",
    "is_month",
    "list_manifest",
    "split_of",
]

Outside = Literal["refuse", "allow"]

# What a manifest may say of an image.
_COLUMNS: Final = ("path", "label", "month", "group", "split", "mask")

_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_SPLIT: Final = re.compile(
    r"((?P<train>train(ing)?)|(?P<val>val(id(ation)?)?|dev)|(?P<test>test(ing)?))([ _-]?(set|data|images|[0-9]{4}))?",
    re.IGNORECASE,
)
MONTH_RULE: Final = "a month is YYYY-MM with MM in 01..12"
_OWN_FOLDER: Final = "the manifest's folder"


def is_month(text: str) -> bool:
    """Whether the text is a month, YYYY-MM.

    >>> is_month("2019-12"), is_month("2019-13"), is_month("2019-1")
    (True, False, False)
    """
    return _MONTH.fullmatch(text) is not None


def split_of(name: str) -> str | None:
    """The split that the name of a folder or a cell of a manifest stands for, in any case.

    >>> split_of("Training"), split_of("valid"), split_of("test_set"), split_of("crack")
    ('train', 'val', 'test', None)
    """
    found = _SPLIT.fullmatch(name.strip())
    return next(split for split, text in found.groupdict().items() if text) if found else None


def differing(what: str, name: str, seen: dict[str, str]) -> str | None:
    """Why a class is not to be called so: one in `seen`, to which it is added, is called nearly the same.

    >>> seen = {}
    >>> differing("labels", "Mass", seen), differing("labels", "Maß", seen)
    (None, None)
    >>> differing("labels", "mass", seen).split(";")[0]
    "labels 'Mass' and 'mass' differ by case or blanks only"
    """
    normal = unicodedata.normalize("NFC", name)
    first = seen.setdefault(" ".join(normal.split()).lower(), name)
    if first == name:
        return None
    same = unicodedata.normalize("NFC", first) == normal
    both = " and ".join(ascii(one) if same else f"'{printable(one)}'" for one in (first, name))
    way = "give one class one name (move its images together), or two classes names that differ in more"
    return f"{what} {both} differ by {'Unicode form' if same else 'case or blanks'} only; {way}"


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image as its folder or manifest row describes it; see `ImageRecord` for the fields."""

    path: Path
    label: str
    month: str | None = None
    group: str | None = None
    split: str | None = None
    mask: Path | None = None
    size: tuple[int, int] | None = None


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

    `read_table` and `table_path` say how. A column month or split that is empty in every row counts as absent.

    Args:
        outside: "refuse" makes images and masks outside the manifest's folder problems.

    Raises:
        InputError: Not a readable manifest, columns are missing, labels differ by case or blanks only, or more than
            ten million rows.
    """
    if not path.is_file():
        raise InputError(f"data.path={printable(path)} is not a file; data=manifest reads a CSV, TSV or Parquet file")
    listing = Listing(path)
    unknown, rows = read_table(path, "manifest ", _COLUMNS[:2], _COLUMNS[2:], on_note=listing.notes.append)
    if unknown:
        listing.notes.append(f"unknown columns of the manifest ignored: {', '.join(map(printable, unknown))}")
    _check_rows(listing, list(rows), Places(path.parent, outside))
    return listing


def _check_rows(listing: Listing, rows: list[tuple[int, dict[str, str]]], places: Places) -> None:
    folder = listing.root.parent
    known = {name for name in ("month", "split") if any(row.get(name) for _, row in rows)}
    seen, labels = dict[str, int](), dict[str, str]()
    for number, row in rows:
        place, label = row["path"], row["label"]
        month, split, mask = (row.get(name) or None for name in ("month", "split", "mask"))
        path, mask_path = table_path(folder, place), table_path(folder, mask) if mask else None
        if label and (reason := differing("labels", label, labels)):
            raise InputError(f"data.path={printable(listing.root)}: row {number}: {reason}")
        identity = os.path.normpath(path)
        wrong = []
        if not place:
            wrong.append("empty path")
        elif places.leads_out(path):
            wrong.append(f"{printable(place)} {places.reason(_OWN_FOLDER)}")
        elif not exists(path):
            wrong.append(f"no such file: {printable(path)}")
        elif seen.setdefault(identity, number) != number:
            wrong.append(f"the same path as row {seen[identity]}: {printable(place)}")
        if not label or label != printable(label):
            wrong.append("empty label" if not label else f"label that cannot be printed: {printable(label)}")
        if "month" in known and not is_month(month or ""):
            wrong.append(f"month {printable(month or '')!r}; {MONTH_RULE}")
        if "split" in known and not split_of(split or ""):
            wrong.append(f"split {printable(split or '')!r}; accepted are train, val, test")
        if mask_path is not None and places.leads_out(mask_path):
            wrong.append(f"mask {printable(mask or '')} {places.reason(_OWN_FOLDER)}")
        elif mask_path is not None and not exists(mask_path):
            wrong.append(f"no such mask: {printable(mask_path)}")
        for reason in wrong:
            listing.report(listing.root, f"row {number}: {reason}")
        if not wrong:
            split, group = split_of(split or ""), row.get("group") or None
            listing.images.append(ListedImage(path, label, month, group, split, mask_path))


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
