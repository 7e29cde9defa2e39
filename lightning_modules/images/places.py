"""Where an image may lie: inside the folder it was listed from, wherever links lead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

__all__ = ["Outside", "Places"]

Outside = Literal["refuse", "allow"]


class Places:
    """Tells paths that lie in a folder from those that lead out of it, by an absolute path, .. or a link.

    Args:
        folder: The folder; it may itself be reached through links.
        outside: "allow" lets every path pass.
    """

    def __init__(self, folder: Path, outside: Outside) -> None:
        self._allow = outside == "allow"
        self._root = os.path.realpath(folder)
        self._folders: dict[Path, str] = {}

    def leads_out(self, path: Path) -> bool:
        """Whether what the path names in the end lies outside the folder; nothing is opened."""
        if self._allow:
            return False
        try:
            where = self._real(path)
        except (OSError, ValueError):  # names that no file can have: whoever opens it says so
            return False
        return where != self._root and not where.startswith(self._root.rstrip(os.sep) + os.sep)

    def reason(self, what: str) -> str:
        """Why such a path is not read, `what` being where it would have to lie."""
        return f"leads out of {what} (data.outside=allow accepts it)"

    def _real(self, path: Path) -> str:
        if path.name == ".." or path.is_symlink():
            return os.path.realpath(path)
        # A set has few folders and many files: links are followed once a folder.
        if path.parent not in self._folders:
            self._folders[path.parent] = os.path.realpath(path.parent)
        return os.path.join(self._folders[path.parent], path.name)  # noqa: PTH118 (compared as text)
