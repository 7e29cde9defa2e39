"""A console on which nothing is silent for long: where there is no terminal, lines say what goes on.

On a terminal, a status is a spinner. Elsewhere (a log, a pipe, a container) rich shows none, and a search would say
nothing for minutes. The lines go where its other lines go: the error stream holds what is wrong, in one line.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status

from search.words import duration

__all__ = ["LONGEST_SILENCE", "SteadyConsole", "loading"]

LONGEST_SILENCE = 9.0
"""Seconds without a line after which one is written; a check a second keeps it below ten."""


_LOADING = "Loading PyTorch, Lightning and MLflow"


class SteadyConsole(Console):
    """A rich console whose statuses are told without a terminal too, while `steady` lasts.

    Attributes:
        doing: what goes on, in words; empty where nobody said.
    """

    def __init__(self, *, silence: float = LONGEST_SILENCE, **options: Any) -> None:
        super().__init__(**options)
        self.doing = ""
        self._silence = silence
        self._began = self._said = time.monotonic()

    def print(self, *objects: Any, **options: Any) -> None:
        """See rich."""
        super().print(*objects, **options)
        self._said = time.monotonic()

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A spinner on a terminal; elsewhere what the lines say while it lasts."""
        return super().status(status, **options) if self.is_terminal else _ToldStatus(str(status), self)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Within the block no silence is longer than ten seconds."""
        if self.is_terminal:
            yield
            return
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), name="thawline-heartbeat", daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(min(1.0, self._silence / 4)):
            now = time.monotonic()
            if now - self._said >= self._silence:
                self._said = now
                with suppress(OSError, ValueError):  # nobody reads it any more, which must not end a search
                    said = f"  after {duration(now - self._began)}: {self.doing or 'working'}"
                    super().print(said, markup=False, highlight=False, soft_wrap=True)


class _ToldStatus(Status):
    """A status that is no spinner: it names what goes on."""

    def __init__(self, text: str, console: SteadyConsole) -> None:
        super().__init__(text, console=console)
        self._text, self._told, self._before = text, console, ""

    def start(self) -> None:
        """Begin to name it."""
        self._before, self._told.doing = self._told.doing, self._text

    def update(self, status: RenderableType | None = None, **_: Any) -> None:
        """Name something else."""
        if status is not None:
            self._text = self._told.doing = str(status)

    def stop(self) -> None:
        """Name what was named before."""
        self._told.doing = self._before


@contextmanager
def loading(console: SteadyConsole) -> Iterator[None]:
    """Say that the block imports the large libraries, unless this process has done so."""
    if "torch" in sys.modules:
        yield
        return
    if not console.is_terminal:
        console.print(f"{_LOADING}.", markup=False, highlight=False)
    with console.status(_LOADING):
        yield
