"""What is refused before Ray is loaded: no Ray, no token, nothing at the address."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lightning_modules.errors import InputError
from search.executor import ray as ray_executor
from search.executor.ray import _cause, _connect, _room_of, check
from search.settings.schema import ExecutorSettings


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def _ray(address: str) -> ExecutorSettings:
    return ExecutorSettings(name="ray", address=address)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"executor=ray needs Ray, .*: pip install 'thawline\[ray\]'"):
        check(_ray("local"))


@pytest.mark.parametrize("address", ["auto", "local"])
def test_a_cluster_without_authentication_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(InputError, match="RAY_AUTH_MODE=token, got 'disabled'; Ray's ports listen on every network"):
        check(_ray(address))


def test_no_token_for_a_cluster_that_runs_already() -> None:
    with pytest.raises(InputError, match="needs the cluster's token, in RAY_AUTH_TOKEN, in the file that"):
        check(_ray("auto"))


def test_the_token_of_the_home_folder_is_one(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    check(_ray("auto"))
    assert os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in os.environ


def test_a_cluster_of_its_own_gets_a_new_token() -> None:
    check(_ray("local"))
    assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nothing_at_the_address(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Ray cluster answers at executor.address={address}"):
            check(_ray(address))


@pytest.mark.parametrize(
    ("node", "threads", "gpus", "room"),
    [
        ({"CPU": 8.0}, 1, 0.0, 8),
        ({"CPU": 8.0}, 3, 0.0, 2),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 0.5, 4),
        ({"CPU": 2.0, "GPU": 2.0}, 1, 0.5, 2),
        ({"CPU": 8.0}, 1, 1.0, 0),
        ({}, 1, 0.0, 0),
    ],
)
def test_how_many_workers_a_node_has_room_for(node: dict[str, float], threads: int, gpus: float, room: int) -> None:
    assert _room_of(node, threads, gpus) == room


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("The actor died.\n\tpid: 7\nThe actor is dead because its node has died. More.\nEnd", "The actor is dead bec"),
        ("The actor died in its creation task\nTraceback\n\nModuleNotFoundError: no search", "ModuleNotFoundError: no"),
        ("Task was killed due to the node running low on memory.\nMemory on the node", "its node ran out of memory"),
        ("", "RuntimeError"),
    ],
)
def test_what_ray_says_of_a_death_is_told_in_one_line(said: str, cause: str) -> None:
    found = _cause(RuntimeError(said))
    assert found.startswith(cause) and "\n" not in found
    assert len(_cause(RuntimeError("x" * 1000))) == 301


def test_ray_reports_no_usage_to_its_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads these when it is loaded: they must be there before."""
    seen: dict[str, str] = {}

    class Loaded(ModuleType):
        def is_initialized(self) -> bool:
            seen.update(os.environ)
            return True

    monkeypatch.setitem(sys.modules, "ray", Loaded("ray"))
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_USAGE_STATS_REPORT_URL", "RAY_worker_niceness"):
        monkeypatch.setenv(name, "1")
    _connect("auto")()
    assert seen["RAY_USAGE_STATS_ENABLED"] == "0" and seen["RAY_worker_niceness"] == "1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 9), 5)
    assert seen["RAY_USAGE_STATS_REPORT_URL"] == "http://127.0.0.1:9"
