"""Files that are whole or not there, and that are told from damaged ones: the one way to write them and to read them.

A file with a digest ends with the line `blake2b HEX`, the digest of all bytes before it. The line is part of the file,
so one rename puts both in place. PyTorch and memory maps of NumPy pass over it: the content says where it ends.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from lightning_modules.errors import printable

__all__ = ["DamagedFileError", "check_digest", "from_cache", "read_checked", "whole_file"]

_MARK: Final = b"\nblake2b "
_DIGEST_BYTES: Final = 16
_LINE_BYTES: Final = len(_MARK) + 2 * _DIGEST_BYTES + 1
_CHUNK_BYTES: Final = 1 << 20

_Content = TypeVar("_Content")


class DamagedFileError(Exception):
    """A file holds other bytes than were written, or no digest of them."""


@contextmanager
def whole_file(path: Path, *, digest: bool = False, alone: bool = True) -> Iterator[Path]:
    """A temporary name to write to; the file takes its place when the block ends without an error, else nothing stays.

    What it writes is on the disk before it is renamed: else a power failure could leave a file of zeros. A file that is
    replaced keeps its mode; a new one gets the mode of the umask.

    Args:
        digest: whether a line with the digest is added, for `read_checked` and `check_digest`.
        alone: whether the caller is the only writer, by a lock or otherwise: what lies under the temporary name is what
            a killed one left, and is written over. If not, the temporary gets a name that no other file has.

    Raises:
        OSError: out of the block, or the file cannot take its place.
    """
    temporary = path.with_suffix(".tmp") if alone else path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if alone:
            temporary.unlink(missing_ok=True)
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)
        temporary.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)  # nobody reads meanwhile what only some may read
        yield temporary
        line = _line(temporary, temporary.stat().st_size) if digest else b""
        with temporary.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)  # safetensors writes files that only their owner may read
        temporary.replace(path)
    finally:
        with suppress(OSError):  # in a folder that became read-only
            temporary.unlink(missing_ok=True)


def check_digest(path: Path) -> int:
    """Compare a file with its digest, a chunk at a time; returns the length of its content in bytes.

    Raises:
        DamagedFileError: it was changed, cut, or written without a digest.
        OSError: it is not there, or cannot be read.
    """
    length = path.stat().st_size - _LINE_BYTES
    with path.open("rb") as file:
        file.seek(max(length, 0))
        if length < 0 or file.read() != _line(path, length):
            raise DamagedFileError(f"{printable(path)} is damaged, or an older version wrote it")
    return length


def read_checked(path: Path) -> bytes:
    """The content of a file, once it is compared with its digest; raises as `check_digest`."""
    length = check_digest(path)
    with path.open("rb") as file:
        return file.read(length)


def from_cache(
    path: Path,
    read: Callable[[Path], _Content],
    on_note: Callable[[str], None] = lambda _: None,
    *,
    then: str = "it is made again",
) -> _Content | None:
    """What `read` makes of a file, or None where there is none to be read and the caller does without.

    A damaged file is removed. The process that removes it says so: `on_note` is called with a line for the user, which
    ends with what happens `then`.
    """
    try:
        return read(path)
    except DamagedFileError as error:
        with suppress(OSError):  # another process was first, or the folder is read-only
            path.unlink()
            on_note(f"{error}; {then}.")
    except OSError:
        pass
    return None


def _line(path: Path, length: int) -> bytes:
    """The line of digest for the first `length` bytes of a file."""
    found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with path.open("rb") as file:
        while length > 0 and (chunk := file.read(min(_CHUNK_BYTES, length))):
            found.update(chunk)
            length -= len(chunk)
    return _MARK + found.hexdigest().encode() + b"\n"
