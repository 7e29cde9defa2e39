"""A Ray cluster of several nodes on this machine: a head without cores and nodes of one core each."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Nodes", "actors", "cluster"]

_TOKEN = secrets.token_hex(32)
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": _TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
_CORE = {"num_cpus": 1, "object_store_memory": 100_000_000}


class Nodes:
    """The cluster, and its nodes by the order in which they came.

    Args:
        count: of nodes beside the head.
    """

    def __init__(self, count: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000},
        )
        self._nodes: list[Any] = []
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self._cluster.address)

    def add(self, **resources: float) -> None:
        """One node more, of one core unless told."""
        self._nodes.append(self._cluster.add_node(**{**_CORE, **resources}))

    def kill(self, position: int = 0) -> None:
        """Take a node away as a power failure does."""
        self._cluster.remove_node(self._nodes.pop(position), allow_graceful=False)

    def raylets(self) -> list[int]:
        """The process of each node that starts its workers, the head's left out."""
        return [node.all_processes["raylet"][0].process.pid for node in self._nodes]

    def fail(self) -> None:
        """All of it loses its power, the head first."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)
        while self._nodes:
            self.kill()

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


def actors() -> list[int]:
    """Processes that serve as workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(b"ray::TrialActor"):
            found.append(int(folder.name))
    return found


def kill_one_actor() -> None:
    """SIGKILL, as the system's out-of-memory killer sends it."""
    os.kill(actors()[0], signal.SIGKILL)


def no_actor_left(seconds: float = 30) -> bool:
    """Whether all are gone after so long."""
    deadline = time.monotonic() + seconds
    while actors():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.fixture(scope="session")
def cluster() -> Iterator[Nodes]:
    """Three nodes, for all tests of the session."""
    before = dict(os.environ)
    os.environ |= ENVIRONMENT  # before Ray is loaded, which reads them once
    pytest.importorskip("ray")
    nodes = Nodes()
    yield nodes
    nodes.close()
    os.environ.clear()
    os.environ |= before
