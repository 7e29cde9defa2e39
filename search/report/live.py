"""The report of a study while its trials run: written again whenever one has ended, in a thread beside the driver."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console

from lightning_modules.errors import printable
from search.report.so_far import SoFar
from search.report.writing import write

__all__ = ["LiveReport"]

_PATIENCE = 60.0  # seconds that a page may take which is begun when the trials end


class LiveReport:
    """Writes the page between `__enter__` and `__exit__`, whenever `refresh` was called since it was written last.

    A page takes half a second of one core. A search does not fail because of it: what goes wrong is said once.

    Args:
        name: of the study.
        root: of the store.
        tell: called with a line for the user, from the thread.
        look: from what the best trial had wrong to what it has wrong now; called in the thread before each page.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        tell: Callable[[str], None],
        look: Callable[[SoFar | None], SoFar | None] = lambda before: before,
    ) -> None:
        self._name, self._root, self._tell, self._look = name, root, tell, look
        self._so_far: SoFar | None = None
        self._due, self._over = threading.Event(), False
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="thawline-report", daemon=True)

    def refresh(self) -> None:
        """A trial has ended; returns at once."""
        self._due.set()

    def __enter__(self) -> LiveReport:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._due.set()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while self._due.wait() and not self._over:
            self._due.clear()
            try:
                self._so_far = self._look(self._so_far)
                report = write(self._name, self._root, Console(file=io.StringIO()), so_far=self._so_far)
            except Exception as error:  # whatever it is, the trials go on
                reason = str(error).strip().split("\n")[0]
                self._once(f"No report yet: {type(error).__name__}: {printable(reason)}")
            else:
                self._once(f"Report so far, written again after each trial: {printable(report.path)}")

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._tell(line)
