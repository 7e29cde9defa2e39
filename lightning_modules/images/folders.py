"""Which images a folder holds: root/<class>/*, below months or the splits train, val and test where there are any."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, NoReturn

from lightning_modules.errors import InputError, printable
from lightning_modules.images.listing import MONTH_RULE, ListedImage, Listing, Outside, Places, is_month
from lightning_modules.images.reading import looks_like_image

__all__ = ["Groups", "Skipped", "is_system", "list_folder", "split_of", "walk_images"]

Groups = Literal["none", "folder"]

# A separator is asked for: folders called 2019 or 201901 may well be classes.
_DATE_LIKE: Final = re.compile(r"[0-9]{4}[-_.][0-9]{1,2}([-_.][0-9]{1,2})?")
_YEAR_AND_MONTH: Final = re.compile(r"(19|20)[0-9]{2}/[0-9]{1,2}")
_SPLIT: Final = re.compile(
    r"((?P<train>train(ing)?)|(?P<val>val(id(ation)?)?|dev)|(?P<test>test(ing)?))([ _-]?(set|data|images|[0-9]{4}))?",
    re.IGNORECASE,
)
_SPLIT_LIKE: Final = re.compile(r"train|test|valid|fold|split|labell?ed", re.IGNORECASE)
# What NAS, desktops and archives put beside images, besides names that begin with a dot.
_SYSTEM: Final = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "~snapshot", "@eadir", "@tmp"}
    | {"@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler"}
    | {"system volume information", "network trash folder", "temporary items"}
)
_ARCHIVES: Final = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
_PICTURES: Final = frozenset({"image", "images", "img", "imgs", "jpegimages"})
_MARKS: Final = frozenset({"ground_truth", "label", "labels", "annotation", "annotations", "mask", "masks"})
_ORDERS: Final = "root/<class>/*, root/<YYYY-MM>/<class>/* and root/<train|val|test>/<class>/*"
_TABLE: Final = "name each image in a table (data=manifest, columns path,label"


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden or a system's own, as @eaDir and ._crack.png are: no command looks into it."""
    return name.startswith(".") or name.lower() in _SYSTEM


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for, in any case.

    >>> split_of("Training"), split_of("valid"), split_of("test_set"), split_of("crack")
    ('train', 'val', 'test', None)
    """
    found = _SPLIT.fullmatch(name.strip())
    return next(split for split, text in found.groupdict().items() if text) if found else None


@dataclass
class Skipped:
    """What is passed over while folders are listed: a system's files by name, others that are no images by suffix."""

    system: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def passes(self, name: str) -> bool:
        """Whether the name is a system's, which is counted."""
        if is_system(name):
            self.system["._*" if name.startswith("._") else name] += 1
        return is_system(name)

    def notes(self) -> list[str]:
        """A line each on system files and on other files, where there were any."""
        names = ", ".join(map(printable, [*sorted(self.system)[:5], *["..."] * (len(self.system) > 5)]))
        hidden = f"{self.system.total()} hidden and system files and folders skipped ({names})"
        return [hidden] * bool(self.system) + [f"{_files(self.others)} skipped"] * bool(self.others)


def _files(others: Counter[str]) -> str:
    which = ", ".join(printable(suffix) for suffix in sorted(others) if suffix)
    which += "; archives are not read: unpack them" if others.keys() & _ARCHIVES else ""
    return f"{others.total()} file{'s'[: others.total() - 1]} without an image suffix{f' ({which})' if which else ''}"


def walk_images(top: Path, skipped: Skipped) -> Iterator[str]:
    """Image files of a folder and the folders in it, in no order; links are followed last, each folder once.

    Raises:
        InputError: A folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting, links = [str(top)], list[str]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(links.index(min(links)))
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if skipped.passes(entry.name):
                        continue
                    if path.is_dir() if entry.is_symlink() else entry.is_dir():
                        (links if entry.is_symlink() else waiting).append(entry.path)
                    elif looks_like_image(path):
                        yield entry.path
                    else:
                        skipped.others[path.suffix.lower()] += 1
        except OSError as error:
            raise InputError(f"folder {printable(folder)} cannot be read ({error.strerror})") from error


def list_folder(root: Path, groups: Groups = "none", outside: Outside = "refuse") -> Listing:
    """Images of root/<class>/*, root/<YYYY-MM>/<class>/* or root/<train|val|test>/<class>/*.

    The upper folders are months where every one looks like a date; a folder that does not, beside some that do, is a
    problem (the smaller number is; months where equal), and so is a date that is no YYYY-MM. They are splits where one
    is called so (`split_of`), unless it is a single one beside two others or more: then it is a class. Labels are
    NFC-normalised.

    Args:
        groups: "folder" makes the folder level below the class the group (coil, plate, lot).
        outside: "refuse" makes links that lead out of the folder problems.

    Raises:
        InputError: `root` is not a readable folder, holds no folders, or its folders are laid out in another way.
    """
    if not root.is_dir():
        raise InputError(f"data.path={printable(root)} is not a folder; data=folder reads root/<class>/* images")
    listing = Listing(root)
    scan = _Scan(listing, Places(root, outside), groups)
    top = scan.below(root)
    if not top:
        reasons = [*(problem.reason for problem in listing.problems), *scan.skipped.notes()[-1:]][:1]
        why = "; ".join([*reasons, f"accepted are {_ORDERS}"])
        raise InputError(f"data.path={printable(root)} holds no class folders; {why}")
    dated = [folder for folder in top if _DATE_LIKE.fullmatch(folder.name)]
    others = [folder for folder in top if folder not in dated]
    if len(dated) >= len(others):
        for folder in others:
            listing.report(folder, f"folder beside months that is no month; {MONTH_RULE}")
        months = {folder: scan.below(folder) for folder in dated if is_month(folder.name)}
        for folder in dated:
            if folder not in months:
                listing.report(folder, f"not a month; {MONTH_RULE}")
        for split in scan.named([folder for folders in months.values() for folder in folders]):
            scan.misplaced(split, "split below a month", ",month,split")
        for folder, folders in months.items():
            scan.classes(folders, month=folder.name)
    else:
        for folder in dated:
            listing.report(folder, "looks like a month beside class folders; months and classes cannot be mixed")
        splits = scan.splits(others)
        for folder, name in splits.items():
            scan.classes(scan.below(folder), split=name)
        if not splits:
            scan.classes(others)
    scan.finish()
    return listing


class _Contents(NamedTuple):
    folders: list[Path]
    images: list[Path]
    others: Counter[str]


class _Scan:
    """Reads each folder once, and only where it is asked to, so that no loop of symbolic links can hold it."""

    def __init__(self, listing: Listing, places: Places, groups: Groups) -> None:
        self.listing, self.skipped = listing, Skipped()
        self._places, self._grouped = places, groups == "folder"
        self._read: dict[Path, _Contents] = {}
        self._seen: dict[tuple[int, int], Path] = {}
        self._named: dict[str, Path] = {}
        self._levels: list[Path] = []  # folders below the classes
        self._filled: set[str] = set()
        self._empty: dict[str, Path] = {}

    def read(self, folder: Path) -> _Contents:
        """What a folder holds, in an order that depends on names only."""
        if folder in self._read:
            return self._read[folder]
        found = self._read[folder] = _Contents([], [], Counter())
        try:
            status = folder.stat()
            first = self._seen.setdefault((status.st_dev, status.st_ino), folder)
            if first != folder:
                self.listing.report(folder, f"link to a folder that is already listed ({printable(first)})")
                return found
            paths = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
            folders = {path for path in paths if path.is_dir()}
        except OSError as error:
            self.listing.report(folder, f"folder cannot be read ({error.strerror})")
            return found
        for path in paths:
            if self.skipped.passes(path.name):
                continue
            if self._places.leads_out(path):
                self.listing.report(path, self._places.reason(f"the folder {printable(self.listing.root)}"))
            elif path in folders or looks_like_image(path):
                (found.folders if path in folders else found.images).append(path)
            else:
                found.others[path.suffix.lower()] += 1
        self.skipped.others += found.others
        return found

    def below(self, folder: Path, what: str = "class") -> list[Path]:
        """Folders in a folder that should hold only folders; images beside them are problems. Once a folder."""
        for path in self.read(folder).images:
            self.listing.report(path, f"image outside any {what} folder")
        return self.read(folder).folders

    def named(self, folders: list[Path]) -> dict[Path, str]:
        """The folders that are called as splits are, unless that is a class."""
        named = {folder: split for folder in folders if (split := split_of(folder.name))}
        names, others = {f.name for f in named}, {f.name for f in folders if f not in named}
        alike = self._grouped or not any(self.read(folder).folders for folder in named)
        if len(names) != 1 or len(others) < 2 or not alike:
            return named
        self.listing.notes.append(f"folder {printable(*names)} is read as a class, as the folders beside it are")
        return {}

    def splits(self, folders: list[Path]) -> dict[Path, str]:
        """The splits that the folders are, folders beside them being problems; empty where they are classes."""
        named = self.named(folders)
        below = {folder: self.read(folder).folders for folder in named}
        names = ", ".join(printable(folder.name) for folder in named)
        if bare := ", ".join(printable(folder.name) for folder in named if not below[folder]):
            make = "make them (root/train/<class>/*; an empty split may go)"
            self._refuse(f"{bare}: a split by the name, without class folders; {make}, or {_TABLE},split)")
        for one in (one for folder in named for one in below[folder]):
            if _DATE_LIKE.fullmatch(one.name) or (split_of(one.name) and self.read(one).folders):
                self.misplaced(one, f"{'split' if split_of(one.name) else 'month'} below a split", ",month,split")
        train = {path.name for folder in named if named[folder] == "train" for path in below[folder]}
        richest = max(folders, key=lambda f: 0 if f.name.lower() in _MARKS else len(self.read(f).folders))
        if len(train) == 1 < len(self.read(richest).folders):
            self._refuse(
                f"train has the class {printable(*train)!r} alone, as sets for finding anomalies do, but a classifier "
                f"learns from images of all; data.path={printable(richest)} reads its classes and draws the splits"
            )
        if named and not {"train", "test"} <= set(named.values()):
            self._refuse(
                f"{names}: splits by the name, of which train and test are needed (val may be absent); rename one, or "
                f"data.path={printable(richest)} reads the classes of one and draws the splits from it"
            )
        reason = f"folder beside the splits {names}; move it away (data.on_bad=set_aside leaves it out)"
        for folder in folders if named else ():
            if folder not in named:
                self.listing.report(folder, reason)
        return named

    def misplaced(self, path: Path, what: str, columns: str) -> NoReturn:
        """Refuse a level that stands elsewhere in the layouts that are read."""
        place = printable(path.relative_to(self.listing.root))
        self._refuse(f"{place} is a {what}; data=folder reads {_ORDERS}: move it so, or {_TABLE}{columns})")

    def _refuse(self, reason: str) -> NoReturn:
        raise InputError(f"data.path={printable(self.listing.root)}: {reason}")

    def classes(self, folders: list[Path], month: str | None = None, split: str | None = None) -> None:
        """Read class folders; refuses two whose names differ too little, and images beside what is marked in them."""
        names = {folder.name.lower() for folder in folders}
        if names & _MARKS and (names & _PICTURES or "ground_truth" in names):
            found = ", ".join(folder.name for folder in folders if folder.name.lower() in _PICTURES | _MARKS)
            need = "one class an image is needed; data.path must name a folder of class folders alone (root/<class>/*)"
            self._refuse(f"{found}: images and boxes or masks, but {need}, or {_TABLE})")
        for folder in folders:
            name = unicodedata.normalize("NFC", folder.name)
            first = self._named.setdefault(" ".join(name.split()).casefold(), folder)
            same = unicodedata.normalize("NFC", first.name) == name
            if first != folder and (not same or first.parent == folder.parent):
                both = " and ".join(ascii(f.name) if same else f"'{printable(f.name)}'" for f in (first, folder))
                which = "Unicode form" if same else "case or blanks"
                way = "give one class one name (move its images together), or two classes names that differ in more"
                self._refuse(f"class folders {both} differ by {which} only; {way}")
            label = printable(name)
            before = len(self.listing.images)
            for place in self.below(folder, "group") if self._grouped else [folder]:
                group = unicodedata.normalize("NFC", printable(place.name)) if self._grouped else None
                inside = self.read(place)
                self.listing.images += [ListedImage(path, label, month, group, split) for path in inside.images]
                self._levels += [place] if self._grouped else inside.folders
                for path in inside.folders if self._grouped else ():
                    self.listing.report(path, "folder below a group, where only images are accepted; move them up")
            if len(self.listing.images) > before:
                self._filled.add(label)
            elif self._grouped or not self.read(folder).folders:
                self._empty.setdefault(label, folder)

    def finish(self) -> None:
        """Say what is below the classes, which have no image in any month or split, and what was skipped."""
        if len(self._named) == 1 and self._levels and not self._filled:
            around = printable(self._levels[0].parent)
            self._refuse(f"one folder with folders in it stands where classes do; data.path={around} reads these")
        splits = [path for path in self._levels if split_of(path.name)]
        if splits and (not self._grouped or len(splits) == len(self._levels)):
            self.misplaced(splits[0], "split below a class", ",split")
        way = "data.groups=folder reads that level as groups of the class above"
        way = "move it away or its images up (data.on_bad=set_aside leaves it out)" if self._filled else way
        for path in () if self._grouped else self._levels:
            if _DATE_LIKE.fullmatch(path.name) or _YEAR_AND_MONTH.fullmatch("/".join(path.parts[-2:])):
                self.misplaced(path, "month below a class", ",month")
            if _SPLIT_LIKE.search(path.parent.name):
                self.misplaced(path.parent, "split of another name", ",split")
            self.listing.report(path, f"folder below a class, where only images are accepted; {way}")
        for label, folder in self._empty.items():
            if label not in self._filled:
                others = self.read(folder).others
                self.listing.report(folder, f"class folder without images{f' ({_files(others)})' if others else ''}")
        self.listing.notes += self.skipped.notes()
