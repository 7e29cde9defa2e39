"""SHA-256 of the files of a folder, as `sha256sum --check SHA256SUMS` reads it too."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from lightning_modules.errors import InputError, printable

__all__ = ["DIGESTS", "check_digests", "sha256", "write_digests"]

DIGESTS: Final = "SHA256SUMS"
"""Name of the file."""

_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\x00-\x1f]+)")


def sha256(path: Path) -> str:
    """Digest of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path) -> None:
    """Write the digests of all files in a folder; what they were before is forgotten."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != DIGESTS)
    text = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    (folder / DIGESTS).write_text(text, encoding="utf-8")


def check_digests(folder: Path, names: tuple[str, ...]) -> None:
    """Compare the files of a folder with their digests. Files without a digest are nobody's business: read none.

    Args:
        folder: with a file `DIGESTS`.
        names: of files that must have a digest.

    Raises:
        InputError: a file is missing or another one than was written, or the digests are damaged.
    """
    where = printable(folder / DIGESTS)
    try:
        lines = (folder / DIGESTS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise InputError(f"{where} is missing or cannot be read: the model cannot be checked, copy it again") from None
    digests = {}
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None or found[2] in (".", ".."):
            raise InputError(f"{where} line {number} is no SHA-256 and the name of a file in this folder")
        digests[found[2]] = found[1]
    for name in (*names, *digests):
        if name not in digests:
            raise InputError(f"{where} has no digest of {name}")
        path = folder / name
        if not path.is_file() or sha256(path) != digests[name]:
            raise InputError(f"{printable(path)} is missing or changed since it was written (SHA-256)")
