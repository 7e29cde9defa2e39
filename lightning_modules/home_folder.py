"""`~` at the beginning of a path, which no shell reads in `key=~/value`."""

from __future__ import annotations

import os

from lightning_modules.errors import InputError, printable

__all__ = ["home_path"]


def home_path(text: str, name: str) -> str:
    """The path with ~ as the home folder and ~USER as that user's, as in a shell; others as they are, ./~ too.

    Args:
        name: of the setting, for messages.

    Raises:
        InputError: there is no home folder; or neither such a user nor a file or folder of that name.
    """
    if not text.startswith("~"):
        return text
    found, (head, *_) = os.path.expanduser(text), text.split("/")  # noqa: PTH111 (texts: a pattern keeps its //)
    wrong = ""
    if head == "~":
        home = os.path.expanduser("~")  # noqa: PTH111 (does not raise)
        if found.startswith("~") or not os.environ.get("HOME", home) or not os.path.isdir(home):  # noqa: PTH112
            wrong = "there is no home folder here"
    elif found == text and not os.path.lexists(head):
        wrong = f"there is no user {printable(head[1:])}"
    if wrong:
        raise InputError(
            f"{name}={printable(text)}: {wrong}; give the whole path, or ./{printable(text)} for that name"
        )
    return found
