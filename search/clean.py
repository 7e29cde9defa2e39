"""`thawline clean`: frees the disk of what a search can compute again, and leaves results alone."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.errors import InputError, printable
from search.command_line.arguments import argument_table, read_arguments, with_whole_names
from search.command_line.exits import run_command
from search.invocation import DEFAULT_ROOT, typed
from search.settings.field import setting

__all__ = ["Arguments", "main"]

_CACHES = {
    "images": "decoded pixels",
    "activations": "activations of frozen blocks",
    "simulated": "simulated images",
}
"""Folder of `cache/` -> what it holds; those there are, and no other."""


@dataclass(frozen=True)
class Arguments:
    """Arguments of the command."""

    root: Path = setting(DEFAULT_ROOT, "folder of the searches")
    dry: bool = setting(False, "true shows what would be removed, and removes nothing")


def help_text() -> str:
    """Text of `--help`."""
    return (
        f"usage: {typed('clean')} [root=FOLDER] [dry=true]\n\n"
        "Removes what a search can compute again: decoded pixels, activations, simulated images. Runs, models,\n"
        "studies, reports and the ledger of retraining stay. The next search makes again what it needs.\n\n"
        f"{argument_table(Arguments)}\n\n"
        "exit codes: 0 done; 2 bad input, or a search is running, nothing removed"
    )


def main(arguments: Sequence[str]) -> int:
    """Remove the caches; returns the exit code."""
    return run_command("clean", arguments, help_text, lambda: _clean(arguments))


def _clean(words: Sequence[str]) -> int:
    given = read_arguments(Arguments, with_whole_names(words, {"tracking.root": "root"}))
    if not given.root.is_dir():
        raise InputError(f"root must be the folder of the searches, got {printable(given.root)}: no such folder")
    with ExitStack() as stack:
        for lock in _locks(given.root):
            _hold(lock, stack)
        freed = 0
        for name, meaning in _CACHES.items():
            folder = given.root / "cache" / name
            if not folder.is_dir():
                continue
            size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
            freed += size
            print(f"{_amount(size):>9}  {meaning}: {printable(folder)}")
            if not given.dry:
                shutil.rmtree(folder)
    if given.dry:
        print(f"{_amount(freed)} would be freed; {typed('clean', root=given.root)} does it.")
    else:
        print(f"{_amount(freed)} freed." if freed else f"Nothing to remove in {printable(given.root)}.")
    return 0


def _locks(root: Path) -> Iterator[Path]:
    """Locks of studies and of retraining: whoever holds one reads and writes the caches."""
    for folder in ("studies", "retraining"):
        yield from sorted((root / folder).glob("*.lock"))


def _hold(lock: Path, stack: ExitStack) -> None:
    from filelock import FileLock, Timeout

    try:
        stack.enter_context(FileLock(lock, timeout=0))
    except Timeout:
        name = printable(lock.name.removesuffix(".lock"))
        raise InputError(f"{name!r} is running and uses the caches: wait for it, or stop it first") from None


def _amount(size: float) -> str:
    """Bytes in the largest unit that keeps a digit before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
