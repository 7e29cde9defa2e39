"""A folder that appears with everything in it, or not at all."""

from __future__ import annotations

import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_modules.errors import InputError, printable

__all__ = ["check_free", "new_folder"]


def check_free(out: Path) -> None:
    """Refuse a place where results would mix with something else.

    Raises:
        InputError: `out` is a file, or a folder that is not empty.
    """
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"to must be a new or an empty folder, got {printable(out)}, which is not empty")
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise InputError(f"to must be a new or an empty folder, got {printable(out)}, which is a file")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` to write into; it takes the place of `out` when the block ends without an error.

    A folder that is replaced keeps its mode; a new one gets the mode of the umask.

    Raises:
        InputError: the folder cannot be made.
    """
    made = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        mode = (out if out.is_dir() else temporary).stat().st_mode
    except OSError as error:
        raise InputError(f"{printable(out)} cannot be made ({error.strerror})") from error
    try:
        yield temporary
        check_free(out)
        temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            folder.rmdir()
        raise
