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
from lightning_modules.images.listing import (
    MONTH_RULE,
    ListedImage,
    Listing,
    Outside,
    Places,
    differing,
    is_month,
    split_of,
)
from lightning_modules.images.reading import looks_like_image

__all__ = ["Groups", "Skipped", "is_system", "list_folder", "walk_images"]

Groups = Literal["none", "folder"]

# A separator is asked for: folders called 2019 or 201901 may well be classes.
_DATE_LIKE: Final = re.compile(r"[0-9]{4}[-_.][0-9]{1,2}([-_.][0-9]{1,2})?")
_YEAR_AND_MONTH: Final = re.compile(r"(19|20)[0-9]{2}/[0-9]{1,2}")
# Whole words only: latest, restrained, cold fold and invalid are classes.
_SPLIT_LIKE: Final = re.compile(
    r"(?<![a-z])(((?P<train>train(ing|val(id)?)?)|test(ing)?|val(id(ation)?)?|dev|pred(iction)?|(un)?labell?ed)"
    r"(set|data|images|[a-d])?|(fold|split)[ _-]?([0-9]+|[a-d]))(?![a-z])",
    re.IGNORECASE,
)
_MARKED: Final = re.compile(r"[ _-](mask|label|gt|seg)$", re.IGNORECASE)
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
        self._named: dict[str, str] = {}
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
        if len(names) != 1 or len(others) < 2 or not (alike or any(self._as_classes(folders, named))):
            return named
        self.listing.notes.append(f"folder {printable(*names)} is read as a class, as the folders beside it are")
        return {}

    def _as_classes(self, folders: list[Path], named: dict[Path, str]) -> list[Path]:
        """Folders called as splits that hold images where classes do, as others beside them do."""
        filled = [
            f for f in folders if any(self.read(g).images for g in (self.read(f).folders if self._grouped else [f]))
        ]
        return [f for f in filled if f in named] if any(f not in named for f in filled) else []

    def _fullest(self, folders: list[Path]) -> Path:
        """The folder of several classes to draw splits from: train, else one called alike, else that of most images."""

        def rank(folder: Path) -> tuple[bool, bool, bool, bool, int]:
            classes, like = self.read(folder).folders, _SPLIT_LIKE.search(folder.name)
            several = len(classes) > 1 and folder.name.lower() not in _MARKS
            images = sum(len(self.read(p).images) for c in classes for p in (c, *self.read(c).folders))
            return several, split_of(folder.name) == "train", bool(like and like["train"]), bool(like), images

        return max(folders, key=rank)

    def splits(self, folders: list[Path]) -> dict[Path, str]:
        """The splits that the folders are, folders beside them being problems; empty where they are classes."""
        named = self.named(folders)
        below = {folder: self.read(folder).folders for folder in named}
        names = ", ".join(printable(folder.name) for folder in named)
        lone = bool(named) and not {"train", "test"} <= set(named.values())
        if bare := ", ".join(printable(folder.name) for folder in named if not below[folder]):
            make = "make them (root/train/<class>/*; an empty split may go)"
            self._refuse(f"{bare}: a split by the name, without class folders; {make}, or {_TABLE},split)")
        if lone and (filled := ", ".join(printable(f.name) for f in self._as_classes(folders, named))):
            what = "a split by the name that holds images as classes do; rename it"
            self._refuse(f"{filled}: {what}, or {_TABLE}{',group' * self._grouped})")
        for one in (one for folder in named for one in below[folder]):
            if _DATE_LIKE.fullmatch(one.name) or (split_of(one.name) and self.read(one).folders):
                self.misplaced(one, f"{'split' if split_of(one.name) else 'month'} below a split", ",month,split")
        train = {path.name for folder in named if named[folder] == "train" for path in below[folder]}
        richest = self._fullest(folders) if lone or len(train) == 1 else folders[0]
        if len(train) == 1 < len(self.read(richest).folders):
            self._refuse(
                f"train has the class {printable(*train)!r} alone, as sets for finding anomalies do, but a classifier "
                f"learns from images of all; data.path={printable(richest)} reads its classes and draws the splits"
            )
        if lone:
            alike = [folder for folder in folders if folder in named or _SPLIT_LIKE.search(folder.name)]
            like = ", ".join(printable(folder.name) for folder in alike)
            table = f"; where {names} is a class, {_TABLE})" * (len(alike) < len(folders))
            self._refuse(
                f"{like}: splits by the name, of which train and test are needed (val may be absent); rename one, or "
                f"data.path={printable(richest)} reads the classes of one and draws the splits from it{table}"
            )
        for split in sorted(set(named.values())):
            if len(joined := [printable(folder.name) for folder in named if named[folder] == split]) > 1:
                self.listing.notes.append(f"folders {', '.join(joined)} are read together as {split}")
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
        marks = [folder for folder in folders if folder.name.lower() in _MARKS]
        pictures = [folder for folder in folders if folder.name.lower() in _PICTURES]
        if marks and (pictures or any(folder.name.lower() == "ground_truth" for folder in marks)):
            found = ", ".join(folder.name for folder in folders if folder in pictures + marks)
            if self._paired(marks, pictures or [folder for folder in folders if folder not in marks]):
                need = "one class an image is needed; data.path must name a folder of class folders alone"
                self._refuse(f"{found}: images and boxes or masks, but {need} (root/<class>/*), or {_TABLE})")
            note = f"{found}: read as classes, as they hold no pairs of files"  # once, not once a month
            self.listing.notes += [note] * (note not in self.listing.notes)
        here: dict[str, str] = {}
        for folder in folders:
            name = unicodedata.normalize("NFC", folder.name)
            what = "class folders"  # of two months, the Unicode forms of a name are one class
            if reason := differing(what, folder.name, here) or differing(what, name, self._named):
                self._refuse(reason)
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

    def _paired(self, marks: list[Path], pictures: list[Path]) -> bool:
        """Whether marks are those of pictures: in folders, no images, or half of them at least called as these."""
        read = [self.read(folder) for folder in marks + pictures]
        stems = {path.stem for folder in pictures for path in self.read(folder).images}
        pairs = [_MARKED.sub("", path.stem) in stems for folder in marks for path in self.read(folder).images]
        return any(each.folders or not each.images for each in read) or 2 * sum(pairs) >= len(pairs)

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
        other = not self._filled and all(map(_SPLIT_LIKE.search, self._named))
        for path in () if self._grouped else self._levels:
            if _DATE_LIKE.fullmatch(path.name) or _YEAR_AND_MONTH.fullmatch("/".join(path.parts[-2:])):
                self.misplaced(path, "month below a class", ",month")
            if other:
                self.misplaced(path.parent, "split of another name", ",split")
            self.listing.report(path, f"folder below a class, where only images are accepted; {way}")
        for label, folder in self._empty.items():
            if label not in self._filled:
                others = self.read(folder).others
                self.listing.report(folder, f"class folder without images{f' ({_files(others)})' if others else ''}")
        self.listing.notes += self.skipped.notes()
