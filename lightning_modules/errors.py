"""What is wrong with the user's input, in one line each."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NO_ROOM", "BadImages", "InputError", "Problem", "printable"]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a disk that is full, and of limits that act alike."""


class InputError(ValueError):
    """Input that cannot be used: one line saying what is wrong, the value received and what is accepted.

    The command line prints the line and exits with status 2.
    """


def printable(text: object) -> str:
    r"""Text, of a path or anything else, that fits on one line of any terminal or log.

    Bytes that are not UTF-8, control characters, line separators, spaces other than the plain one and characters that
    turn the direction of text (a name could be shown as another) are shown as backslash escapes.

    >>> printable("lot 3/a\nb.png")
    'lot 3/a\\nb.png'
    """
    decoded = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in decoded)


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with the images.

    Attributes:
        path: Printable path of the file or folder concerned (see `printable`).
        reason: Why it cannot be used, in one line.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class BadImages(InputError):  # noqa: N818 (what it carries, not what went wrong with the program)
    """Everything found wrong with a set of images.

    Args:
        problems: At least one problem.
        where: What was searched, such as "PATH (data.on_bad=refuse)"; stands in the headline when there are several.

    Raises:
        ValueError: `problems` is empty.
    """

    def __init__(self, problems: Sequence[Problem], where: str = "the images") -> None:
        if not problems:
            raise ValueError("problems must hold at least one problem, got none")
        super().__init__(tuple(problems), where)
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.where = where

    def __str__(self) -> str:
        first = self.problems[0]
        return (
            str(first)
            if len(self.problems) == 1
            else f"{len(self.problems)} bad inputs in {self.where}: first: {first}"
        )
