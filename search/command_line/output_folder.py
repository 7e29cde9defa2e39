"""A folder that appears with everything in it, or not at all."""

from __future__ import annotations

import shutil
import tempfile
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
        raise InputError(f"out must be a new or an empty folder, got {printable(out)}, which is not empty")
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise InputError(f"out must be a new or an empty folder, got {printable(out)}, which is a file")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` to write into; it takes the place of `out` when the block ends without an error.

    Raises:
        InputError: the folder cannot be made.
    """
    made = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"out={printable(out)} cannot be made ({error.strerror})") from error
    try:
        temporary.chmod(0o755)
        yield temporary
        check_free(out)
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            folder.rmdir()
        raise
