"""Ctrl-C once lets the running trial end, twice stops now; SIGTERM closes the MLflow runs and exits with 143."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["InterruptFlag", "graceful_interrupts"]


class InterruptFlag:
    """Whether the user asked to stop after the trials that run now; asking it is where a stop at once is raised."""

    def __init__(self) -> None:
        self.requested = False
        self._held = False
        self._waiting: BaseException | None = None

    def __call__(self) -> bool:
        if self._waiting is not None:
            raise self._waiting
        return self.requested

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block a stop is raised where this flag is asked, and at the end, but nowhere between.

        Raised in the middle of a write, it left a lock or half a record of Optuna's journal behind.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self()

    def close(self) -> None:
        """Raise nothing any more: what is left to do, closing the runs, is quick."""
        self._held = True

    def stop(self, how: BaseException) -> None:
        """Raise `how`, now or where the flag is asked next.

        It is raised there too where it was raised already: code in C, such as Matplotlib's, may have made an error of
        its own of it.
        """
        self._waiting = how
        if not self._held:
            raise how


@contextmanager
def graceful_interrupts(say: Callable[[str], None]) -> Iterator[InterruptFlag]:
    """Install both handlers, and put the earlier ones back on leaving.

    Yields:
        A flag that the first Ctrl-C sets; the second stops with KeyboardInterrupt, SIGTERM with SystemExit(143).
    """
    flag = InterruptFlag()

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        if flag.requested:
            flag.stop(KeyboardInterrupt())
        else:
            flag.requested = True
            say("Stopping after the running trial; press Ctrl-C again to stop now.")

    def on_terminate(signum: int, frame: FrameType | None) -> None:
        flag.stop(SystemExit(143))

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
