"""A worker on a node of a Ray cluster: `serve_plan` in a thread, spoken to by calls of an actor's methods."""

from __future__ import annotations

import os
import queue
import secrets
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from socket import gethostname

import numpy as np
from numpy.typing import NDArray

from search.executor.worker import WorkerPlan, queue_channel, serve_plan

__all__ = ["Greeting", "TrialActor", "versions"]

_PACKAGES = ("thawline", "torch", "ray")


@dataclass(frozen=True)
class Greeting:
    """What a worker says of its node before it is given anything to do.

    Attributes:
        host: its name.
        missing: of the paths that every node must have, those that it cannot read or write.
        mark: a file that it has made in the folder that all nodes share; its reader removes it.
        guarded: whether its Ray asks for a token.
        versions: package -> version, of what must be the same as the driver's.
    """

    host: str
    missing: tuple[str, ...]
    mark: str
    guarded: bool
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Package -> version, of what must be the same on every machine of a search."""
    return {name: version(name) for name in _PACKAGES}


class TrialActor:
    """The methods of the actor; several of them run at a time (`max_concurrency`).

    Args:
        plan: of the worker; without its pixels, which come from Ray's object store.
        pixels: uint8 (N, H, W, C).
        folder: the driver's working folder, which relative paths of settings are meant from.
    """

    def __init__(self, plan: WorkerPlan, pixels: NDArray[np.uint8], folder: Path) -> None:
        with suppress(OSError):  # not on this node: `greet` looks for the files themselves
            os.chdir(folder)
        self._plan = replace(plan, pixels=pixels, cache=_own_folder(plan.cache))
        self._inbox: queue.Queue[object] = queue.Queue()
        self._outbox: queue.Queue[object] = queue.Queue()
        self._due, self._early = 0, dict[int, object]()
        self._sending = threading.Lock()
        channel = queue_channel(self._inbox, self._outbox)
        self._thread = threading.Thread(target=serve_plan, args=(channel, self._plan), name="thawline-trial")
        self._thread.daemon = True

    def greet(self, shared: Path, files: Sequence[Path]) -> Greeting:
        """Say what the node has, and begin to wait for jobs.

        Args:
            shared: folder that all nodes share.
            files: that every node must have.
        """
        missing = [str(path) for path in files if not path.exists()]
        mark = f".ray-{secrets.token_hex(8)}"
        try:
            (shared / mark).touch()
        except OSError:
            missing.append(str(shared))
        self._thread.start()
        guarded = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        return Greeting(gethostname(), tuple(missing), mark, guarded, versions())

    def send(self, number: int, message: object) -> None:
        """A message of the driver; calls may arrive in another order than that of their numbers."""
        with self._sending:
            self._early[number] = message
            while self._due in self._early:
                self._inbox.put(self._early.pop(self._due))
                self._due += 1

    def receive(self) -> list[object]:
        """The messages to the driver since the last call; waits for one."""
        messages = [self._outbox.get()]
        with suppress(queue.Empty):
            while True:
                messages.append(self._outbox.get_nowait())
        return messages

    def end(self, seconds: float) -> None:
        """End the thread after the batch that is being trained; wait for it for so long at most."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)


def _own_folder(folder: Path) -> Path:
    """The folder, or where it is relative, which names none, one of this user's among the node's temporary files."""
    if folder.is_absolute():
        return folder
    folder = Path(tempfile.gettempdir()) / f"thawline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # another user's, who could change what lies there
        return Path(tempfile.mkdtemp(prefix="thawline-"))
    return folder
