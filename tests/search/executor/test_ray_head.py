"""The head of a Ray cluster: a port that answers, or does not."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from lightning_modules.errors import InputError
from search.executor import ray_head
from search.executor.ray_head import HeadWatch, reachable


@pytest.fixture
def port() -> socket.socket:
    """Something that listens on this machine."""
    return socket.create_server(("127.0.0.1", 0))


def _address(port: socket.socket) -> str:
    return f"127.0.0.1:{port.getsockname()[1]}"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:port", "nowhere"])
def test_why_an_address_does_not_answer(address: str) -> None:
    assert reachable(address, 1)


def test_a_head_that_falls_silent_is_lost_in_one_line(port: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_head, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(ray_head, "_PATIENCE_SECONDS", 1.0)
    address = _address(port)
    watch = HeadWatch(address)
    for _ in range(30):
        time.sleep(0.05)
        watch.check()  # it answers, for longer than the patience
    port.close()
    deadline = time.monotonic() + 60
    while not watch.lost and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(InputError, match=f"^the head of the Ray cluster at {address} no longer answers; the same"):
        watch.check()
    watch.close()


def test_where_it_cannot_be_reached_from_the_beginning_nothing_is_watched(
    port: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_head, "_PATIENCE_SECONDS", 0.0)
    address = _address(port)
    port.close()
    watch = HeadWatch(address)
    assert not watch.watches and not watch.lost
    watch.check()


_BLOCKED = """
import socket, time
from search.executor import ray_head
ray_head._PAUSE_SECONDS, ray_head._PATIENCE_SECONDS, ray_head._GRACE_SECONDS = 0.05, 0.2, 0.2
port = socket.create_server(("127.0.0.1", 0))
watch = ray_head.HeadWatch(f"127.0.0.1:{port.getsockname()[1]}")
assert watch.watches
port.close()
time.sleep(300)  # as in a call of Ray that never returns
"""


def test_a_driver_that_is_held_by_a_lost_cluster_ends_with_that_line() -> None:
    done = subprocess.run([sys.executable, "-c", _BLOCKED], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("search: the head of the Ray cluster at ") and done.stderr.count("\n") == 1
