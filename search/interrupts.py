"""Ctrl-C once lets the running trial end, twice stops now; SIGTERM closes the books and leaves with 143."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["InterruptFlag", "graceful_interrupts"]


class InterruptFlag:
    """Whether the user asked to stop after the trials that run now."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        return self.requested


@contextmanager
def graceful_interrupts(say: Callable[[str], None]) -> Iterator[InterruptFlag]:
    """Install both handlers, and put the earlier ones back on leaving.

    Args:
        say: shows a line to the user.

    Yields:
        A flag that the first Ctrl-C sets; the second raises KeyboardInterrupt, SIGTERM raises SystemExit(143).
    """
    flag = InterruptFlag()

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        if flag.requested:
            raise KeyboardInterrupt
        flag.requested = True
        say("Stopping after the running trial; press Ctrl-C again to stop now.")

    def on_terminate(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
