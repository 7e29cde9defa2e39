"""A Ray cluster on this machine with token authentication, in a process of its own: the one that injects faults forks.

`python -m tests.faults.cluster` starts a head without cores and two nodes of one core, and says their address and
processes after each line that it reads: `kill POSITION`, `add`, `restart`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path

from tests.search.executor.ray_nodes import ENVIRONMENT, Nodes

__all__ = ["Cluster"]

_TRIES = 3
_SUBREAPER = 36  # prctl: what outlives its raylet stays a descendant


class Cluster:
    """The cluster as the process that injects faults sees it.

    Attributes:
        address: HOST:PORT.
        raylets: the process of each node that starts its workers, by the order in which they came.
    """

    def __init__(self) -> None:
        os.environ |= ENVIRONMENT  # of the searches too
        self.address, self.raylets = "", [0]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.cluster"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C is for the lane, which closes the cluster
        )  # fmt: skip
        self._hear()

    def ask(self, line: str) -> None:
        """One of the lines that it reads; returns once that is done."""
        if self._process.stdin is None:
            raise RuntimeError("the cluster cannot be spoken to")
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        self._hear()

    def actors(self, raylet: int | None = None) -> list[int]:
        """Processes that serve as workers: of one node, or of all and of those that are gone."""
        below = _descendants(self._process.pid if raylet is None else raylet)
        return [pid for pid in below if _command_line(pid).startswith(b"ray::TrialActor")]

    def busy_node(self) -> int:
        """Position of the oldest node that has a worker; 0 where none has."""
        return next((i for i, raylet in enumerate(self.raylets) if self.actors(raylet)), 0)

    def left(self, seconds: float) -> list[int]:
        """The workers that are there after at most so many seconds."""
        deadline = time.monotonic() + seconds
        while (found := self.actors()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def close(self) -> None:
        """End all of it, and what is left of it."""
        below = _descendants(self._process.pid)
        self._process.communicate()  # closes its input, which ends it
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _hear(self) -> None:
        if self._process.stdout is None or not (line := self._process.stdout.readline()):
            raise RuntimeError("the cluster did not start, or ended")
        said = json.loads(line)
        self.address, self.raylets = said["address"], said["raylets"]


def _descendants(root: int) -> list[int]:
    """All processes below one."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        below.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [], [root]
    while new:
        new = [child for pid in new for child in below.get(pid, [])]
        found += new
    return found


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _started() -> Nodes:
    """A cluster; one that gives up while it starts, as Ray does on a busy machine, is started again."""
    for _ in range(_TRIES - 1):
        with suppress(Exception):
            return Nodes()
    return Nodes()


def _serve() -> None:
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        nodes = _started()
        while True:
            print(json.dumps({"address": nodes.address, "raylets": nodes.raylets()}), file=answers, flush=True)
            if not (words := sys.stdin.readline().split()):
                break
            if words[0] == "kill":
                nodes.kill(int(words[1]))
            elif words[0] == "add":
                nodes.add()
            elif words[0] == "restart":
                nodes.fail()
                nodes = _started()
        nodes.close()


if __name__ == "__main__":
    _serve()
