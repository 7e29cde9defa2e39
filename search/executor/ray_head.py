"""Whether the head of a Ray cluster still answers: Ray itself ends a driver without a word to it when it does not."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

from lightning_modules.errors import InputError

__all__ = ["HeadWatch", "reachable"]

_PATIENCE_SECONDS = 20.0  # Ray ends this process after 60
_GRACE_SECONDS = 15.0  # for the driver to come and look
_PAUSE_SECONDS = 2.0


def reachable(address: str, seconds: float) -> str:
    """Empty where something listens at HOST:PORT, else why not."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, OverflowError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


class HeadWatch:
    """Knocks at the head's port every two seconds, from a thread of its own.

    Where the head is lost and nobody comes to `check`, the driver is inside a call of Ray that never returns. Then the
    thread says what `check` would have said and ends the process with exit code 2, as a driver that is killed: the same
    command goes on with the study.

    Args:
        address: HOST:PORT of the head. Where nothing answers there from the beginning, as from outside of the cluster's
            network, nothing is watched.
    """

    def __init__(self, address: str) -> None:
        self._address, self._answered = address, time.monotonic()
        self._closed = threading.Event()
        self.watches = not reachable(address, _PAUSE_SECONDS)
        if self.watches:
            threading.Thread(target=self._knock, name="thawline-ray-head", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether it has not answered for twenty seconds."""
        return self._silent > _PATIENCE_SECONDS

    def check(self) -> None:
        """Raise an `InputError` where it is lost."""
        if self.lost:
            self.close()
            raise InputError(self._line)

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    @property
    def _silent(self) -> float:
        return time.monotonic() - self._answered if self.watches else 0.0

    @property
    def _line(self) -> str:
        return (
            f"the head of the Ray cluster at {self._address} no longer answers; "
            "the same command goes on with the study when it does, or on another cluster"
        )

    def _knock(self) -> None:
        while not self._closed.wait(_PAUSE_SECONDS):
            if not reachable(self._address, _PAUSE_SECONDS):
                self._answered = time.monotonic()
            elif self._silent > _PATIENCE_SECONDS + _GRACE_SECONDS and not self._closed.is_set():
                print(f"search: {self._line}", file=sys.stderr, flush=True)
                os._exit(2)
