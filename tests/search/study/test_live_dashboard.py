"""Optuna's dashboard on a study's journal while its owner goes on writing: what the printed command serves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.study.opening import load_or_create


@pytest.fixture
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


def _get(app: Callable[..., Any], path: str) -> dict[str, Any]:
    statuses: list[str] = []
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "x", "SERVER_PORT": "1"}
    environ |= {"wsgi.url_scheme": "http", "QUERY_STRING": ""}
    body = b"".join(app(environ, lambda status, headers, *_: statuses.append(status)))
    assert statuses == ["200 OK"], body
    return dict(json.loads(body))


@pytest.mark.usefixtures("_quiet")
@pytest.mark.filterwarnings("ignore")  # the dashboard's own
def test_it_follows_a_study_that_runs(tmp_path: Path) -> None:
    from optuna_dashboard import wsgi
    from optuna_dashboard._storage_url import get_storage  # what its command makes of its argument

    journal = tmp_path / "studies" / "강판 3.journal"
    study, _ = load_or_create(journal, "강판 3", {"seed": 0}, fresh=False)
    app = wsgi(get_storage(str(journal)))

    def states() -> list[tuple[str, int]]:
        trials = _get(app, "/api/studies/0")["trials"]
        return [(trial["state"], len(trial["intermediate_values"])) for trial in trials]

    first = study.ask()
    first.suggest_int("freeze_depth", 0, 8)
    first.report(0.5, 1)
    assert states() == [("Running", 1)]
    before = journal.read_bytes()
    assert [one["study_name"] for one in _get(app, "/api/studies")["study_summaries"]] == ["강판 3"]
    assert journal.read_bytes() == before, "looking writes nothing"
    first.report(0.7, 2)
    study.tell(first, 0.7)
    second = study.ask()
    second.report(0.1, 1)
    study.tell(second, state=optuna.trial.TrialState.PRUNED)
    end = time.monotonic() + 120
    while (seen := states()) == [("Running", 1)] and time.monotonic() < end:
        time.sleep(0.2)  # it answers from memory for two seconds
    assert seen == [("Complete", 2), ("Pruned", 1)]
