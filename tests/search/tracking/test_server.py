"""Runs on an MLflow server: what is refused, a server that is away, and one that is started anew in mid-study."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lightning_modules.errors import InputError
from search.errors import StoreError
from search.settings.schema import TrackingSettings
from search.tracking import server
from search.tracking.server import ServerTracker, make_tracker, server_uri
from search.tracking.tracker import Tracker


def _settings(uri: str | None, root: Path = Path("mlruns")) -> TrackingSettings:
    return TrackingSettings(root=root, uri=uri, report=False)


def test_the_environment_names_the_server_only_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert server_uri(_settings("http://here")) == "http://here"
    assert server_uri(_settings("environment")) == "http://there:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(InputError, match=r"needs MLFLOW_TRACKING_URI=http://HOST:PORT .* got 'sqlite:///mlflow.db'"):
        server_uri(_settings("environment"))


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ServerTracker, list[str]]]:
    """One that was never connected, with what it says."""
    said: list[str] = []
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(ServerTracker, "_connect", lambda self, experiment: None)
    monkeypatch.setattr(server, "_FIRST_PAUSE", 0.01)
    found = make_tracker(_settings("http://there"), said.append)
    assert isinstance(found, ServerTracker) and found.uri == "http://there"
    yield found, said


def test_a_server_that_is_away_for_a_moment_is_waited_for(tracker: tuple[ServerTracker, list[str]]) -> None:
    found, said = tracker
    away = MlflowException("API request to http://there/api failed with exception Connection refused")
    answers: list[Any] = [away, away, None]
    calls: list[str] = []

    def set_terminated(run_id: str, status: str) -> None:
        calls.append(status)
        if (answer := answers.pop(0)) is not None:
            raise answer

    found._client = SimpleNamespace(set_terminated=set_terminated)  # type: ignore[assignment]
    found.finish("1", "FINISHED")
    assert calls == ["FINISHED"] * 3
    assert said == ["http://there does not answer. Waiting for it, 300 s at most."]


def test_a_server_that_stays_away_or_refuses_ends_the_search_in_one_line(
    tracker: tuple[ServerTracker, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said = tracker
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 0.02)
    for words, line in (
        (
            "API request to http://there failed with error code 503",
            "has been away for 0 s; run the same command",
        ),
        ("Permission denied", r"http://there refused \(Permission denied\)"),
    ):

        def fail(*_: Any, words: str = words) -> None:
            raise MlflowException(words)

        found._client = SimpleNamespace(set_terminated=fail)  # type: ignore[assignment]
        with pytest.raises(StoreError, match=line):
            found.finish("1", "FINISHED")
    assert len(said) == 1


def test_without_an_address_the_store_is_that_of_this_machine(tracking_root: Path) -> None:
    found = make_tracker(_settings(None, tracking_root), print)
    assert type(found) is Tracker and found.place == str(tracking_root / "mlflow.db")


class Server:
    """MLflow's own, with a store and artifacts in a folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; returns at once."""
        options = ("--host", "127.0.0.1", "--port", str(self._port), "--workers", "1")
        store = ("--backend-store-uri", f"sqlite:///{self._folder}/server.db")
        places = ("--artifacts-destination", f"{self._folder}/kept")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *places, *options],
            cwd=self._folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                return socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                time.sleep(0.2)
        pytest.fail("the server does not answer")

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        os.killpg(self._process.pid, 9)
        self._process.wait()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_search_goes_on_when_its_server_was_started_anew(
    tiny: tuple[str, ...], run_search: Callable[..., Any], tmp_path: Path
) -> None:
    own = [word for word in tiny if not word.startswith("tracking.")]
    server = Server(tmp_path)
    server.start()
    server.wait()
    try:
        arguments = (
            *own, f"tracking.root={tmp_path / 'mlruns'}", "tracking=server", f"tracking.uri={server.uri}",
            "executor=inline", "search.study=served", "search.trials=6",
        )  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-m", "search", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}, cwd=tmp_path,
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stderr is not None
            said, killed = "", False
            for line in process.stdout:
                said += line
                if line.startswith("trial ") and not killed:
                    killed = True
                    server.kill()
                    server.start()
            err = process.stderr.read()
        assert process.returncode == 0, said + err
        assert killed and "does not answer. Waiting for it" in said
        assert f"All trials: {server.uri}" in said and err == ""
        client = MlflowClient(server.uri, registry_uri=server.uri)
        experiment = client.get_experiment_by_name("thawline")
        assert experiment is not None and experiment.artifact_location.startswith("mlflow-artifacts:/")
        runs = client.search_runs([experiment.experiment_id])
        trials = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        assert sorted(run.data.tags["slot"] for run in trials if run.info.status == "FINISHED") == list("012345")
        assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
        assert client.get_model_version_by_alias("thawline", "challenger").version == "1"
        parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
        assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {
            "activation_cache.json",
            "figures",
            "test",
        }
        assert not (tmp_path / "mlruns" / "mlflow.db").exists()
    finally:
        server.kill()
