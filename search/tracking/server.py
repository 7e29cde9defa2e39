"""Runs and models on an MLflow server elsewhere, which may be away for a while."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from lightning_modules.errors import InputError, printable
from search.errors import StoreError
from search.settings.schema import TrackingSettings
from search.tracking.tracker import Tracker

__all__ = ["ServerTracker", "make_tracker", "server_uri"]

_PATIENCE_SECONDS = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
# What MLflow's client says of a server that cannot be reached, or that stands behind a proxy and is being started.
_AWAY = re.compile(r"API request to .* failed with (exception|timeout|error code 50[234])|max retries exceeded", re.S)

_R = TypeVar("_R")


def make_tracker(settings: TrackingSettings, say: Callable[[str], None]) -> Tracker:
    """The tracker that the settings name; `say` is called with a line for the user while a server is away."""
    if settings.uri is None:
        return Tracker.of(settings)
    return ServerTracker(settings, say)


def server_uri(settings: TrackingSettings) -> str:
    """Address of the server, which `tracking.uri=environment` leaves to MLFLOW_TRACKING_URI.

    Raises:
        InputError: that names none.
    """
    if settings.uri != "environment":
        return str(settings.uri)
    found = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not re.match("https?://", found):
        raise InputError(
            "tracking.uri=environment needs MLFLOW_TRACKING_URI=http://HOST:PORT or https://HOST, got "
            f"{printable(found)!r}"
        )
    return found


class ServerTracker(Tracker):
    """Writes to a server, which keeps the artifacts too; while it is away it waits, longer each time.

    What was under way when the server went is sent again. A run that was made twice for that stays open until the next
    call of the search closes it.

    Raises:
        StoreError: here and in every method: the server does not come back, or refuses.
        InputError: the experiment was deleted in MLflow.
    """

    def __init__(self, settings: TrackingSettings, say: Callable[[str], None]) -> None:
        self._uri, self._say = server_uri(settings), say
        # Its own retries are silent, and so many that the user would think that nothing happens.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        super().__init__(settings.root, settings.experiment, restore=settings.restore)

    def _connect(self, experiment: str) -> None:
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)
        self._client = MlflowClient(self._uri, registry_uri=self._uri)
        self._last = 0
        self._open_experiment(experiment)

    @property
    def uri(self) -> str:
        """Address of the server."""
        return self._uri

    @property
    def place(self) -> str:
        """Where the runs are, for people."""
        return printable(self._uri)

    def _called(self, call: Callable[[], _R]) -> _R:
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                return call()
            except StoreError:  # of a call within this one
                raise
            except (MlflowException, OSError) as error:
                words = printable(" ".join(str(error).split()))[:200]
                if not _AWAY.search(str(error)):
                    raise StoreError(f"{self.place} refused ({words}); run the same command again") from error
                waited = time.monotonic() - began
                if waited > _PATIENCE_SECONDS:
                    raise StoreError(
                        f"{self.place} has been away for {waited:.0f} s; run the same command again once it works"
                    ) from error
                if pause == _FIRST_PAUSE:
                    self._say(f"{self.place} does not answer. Waiting for it, {_PATIENCE_SECONDS:g} s at most.")
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _remove_artifact(self, run_id: str, file: str) -> None:
        folder = file.rpartition("/")[0]
        if any(there.path == file for there in self._client.list_artifacts(run_id, folder or None)):
            store: Any = get_artifact_repository(self._client.get_run(run_id).info.artifact_uri)
            store.delete_artifacts(file)
