"""Whether the head of a Ray cluster still answers: Ray itself ends a driver without a word to it when it does not."""

from __future__ import annotations

import socket
import threading
import time

from lightning_modules.errors import InputError

__all__ = ["HeadWatch", "reachable"]

_PATIENCE_SECONDS = 20.0  # Ray ends this process after 60
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
        return self.watches and time.monotonic() - self._answered > _PATIENCE_SECONDS

    def check(self) -> None:
        """Raise an `InputError` where it is lost."""
        if self.lost:
            raise InputError(
                f"the head of the Ray cluster at {self._address} no longer answers; "
                "the same command goes on with the study when it does, or on another cluster"
            )

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _knock(self) -> None:
        while not self._closed.wait(_PAUSE_SECONDS):
            if not reachable(self._address, _PAUSE_SECONDS):
                self._answered = time.monotonic()
