"""Which images there are, in order, without holding their names in memory."""

from __future__ import annotations

import glob
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lightning_modules.errors import InputError, printable
from lightning_modules.images.reading import IMAGE_SUFFIXES
from lightning_modules.images.tables import is_table, table_path
from search.command_line.csv_table import iterate_rows

__all__ = ["ImageList", "ListedFile", "listed_images"]

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One image: as the user named it, and where it is."""

    name: str
    path: Path


class ImageList:
    """Images in a temporary sqlite database on disk, which sorts them there too; made by `listed_images`."""

    def __init__(self, names: Iterator[str], *, folder: Path | None, unsorted: bool) -> None:
        self._folder, self._order = folder, "name" if unsorted else "rowid"
        self._database = sqlite3.connect("")  # private, on disk, gone when it is closed
        self._database.execute("CREATE TABLE images (name BLOB)")
        while rows := [(os.fsencode(name),) for name in islice(names, _ROWS_AT_ONCE)]:
            self._database.executemany("INSERT INTO images VALUES (?)", rows)
        self.count: int = self._database.execute("SELECT count(*) FROM images").fetchone()[0]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[ListedFile]:
        # The order is one of ours.
        query = f"SELECT name FROM images ORDER BY {self._order}"  # noqa: S608 # nosec B608
        for (raw,) in self._database.execute(query):
            name = os.fsdecode(raw)
            yield ListedFile(name, Path(name) if self._folder is None else table_path(self._folder, name))

    def close(self) -> None:
        """Remove the database."""
        self._database.close()


@contextmanager
def listed_images(pattern: str) -> Iterator[ImageList]:
    """The images that `images=` names.

    Args:
        pattern: a table (.csv, .tsv, .txt, .parquet) with a column path, whose rows keep their order; an image; a
            folder, searched to its depth for files with the suffix of an image, hidden ones left out; or a pattern with
            *, ?, [...] and ** for any depth, whose files are taken whatever they are called. Folders and patterns are
            sorted by name.

    Raises:
        InputError: nothing is found, or the table is none.
    """
    path = Path(pattern)
    if is_table(path):
        names = (row["path"] for _, row in iterate_rows(path, "images"))
        found = ImageList(names, folder=path.parent, unsorted=False)
        reason = ""
    elif path.is_dir():
        found = ImageList(_walk(path), folder=None, unsorted=True)
        reason = "the folder holds no image"
    elif path.exists():
        found, reason = ImageList(iter([pattern]), folder=None, unsorted=False), ""
    else:
        matches = (name for name in glob.iglob(pattern, recursive=True) if Path(name).is_file())  # noqa: PTH207
        found = ImageList(matches, folder=None, unsorted=True)
        reason = "the pattern matches no file" if glob.has_magic(pattern) else "no such file or folder"
    with closing(found):
        if not len(found):
            raise InputError(f"images must name at least one image file, got {printable(pattern)}: {reason}")
        yield found


def _walk(top: Path) -> Iterator[str]:
    """Image files below a folder; links are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                        yield entry.path
        except OSError as error:
            raise InputError(f"images: {printable(folder)} cannot be read ({error.strerror})") from error
