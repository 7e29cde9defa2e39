"""Which images there are, in order, without holding their names in memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lightning_modules.images.folders import Skipped
from lightning_modules.images.tables import is_table, table_path
from search.command_line.csv_table import iterate_rows
from search.command_line.image_paths import image_names, nothing_found

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
        self.notes: list[str] = []  # what was passed over
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
        pattern: a table (.csv, .tsv, .txt, .parquet) with a column path, whose rows keep their order; or as in
            `image_names`, sorted by name.

    Raises:
        InputError: nothing is found, or the table is none.
    """
    path, skipped = Path(pattern), Skipped()
    if is_table(path):
        names = (row["path"] for _, row in iterate_rows(path, "images"))
        found = ImageList(names, folder=path.parent, unsorted=False)
    else:
        found = ImageList(image_names(pattern, skipped), folder=None, unsorted=True)
    with closing(found):
        if not len(found):
            raise nothing_found(pattern, skipped)
        found.notes = skipped.notes()
        yield found
