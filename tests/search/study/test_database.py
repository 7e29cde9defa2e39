"""Studies in PostgreSQL: one driver each, copies to and fro, and a server that is started anew in mid-study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from lightning_modules.errors import InputError
from search.copy_study import copy_study
from search.errors import StoreError
from search.study import database
from search.study.database import StudyLock, check_database, database_errors, open_database
from search.study.opening import load_or_create, load_study
from tests.search.running_search import rest_of, running
from tests.search.study.postgres import Server, server

__all__ = ["server"]

pytestmark = pytest.mark.slow
Trials = list[tuple[Any, ...]]


def _trials(study: optuna.Study) -> Trials:
    return [
        (t.number, t.state, t.params, t.intermediate_values, t.values, t.user_attrs, t.system_attrs, t.datetime_start)
        for t in study.trials
    ]


def _fill(study: optuna.Study) -> None:
    """A finished trial, one that failed and one that runs."""
    for slot, state in enumerate((TrialState.COMPLETE, TrialState.FAIL, None)):
        trial = study.ask({"lr_factor": FloatDistribution(0.1, 10, log=True)})
        trial.set_user_attr("slot", slot)
        trial.report(0.25, 1)
        trial.report(float("inf"), 2)
        if state is not None:
            study.tell(trial, 0.5 if state is TrialState.COMPLETE else None, state=state)


def test_a_study_goes_into_the_database_and_back_as_it_was(server: Server, tmp_path: Path) -> None:
    journal = tmp_path / "studies" / "there.journal"
    study, _ = load_or_create(journal, "there", {"seed": 1}, fresh=False)
    _fill(study)
    before, attributes = _trials(study), study.user_attrs
    said = copy_study(tmp_path, "there", server.url)
    assert "give search.storage=" in said and not journal.exists() and journal.with_suffix(".journal.copied").exists()
    moved, existed = load_or_create(journal, "there", {"seed": 1}, fresh=False, database=server.url)
    assert existed and _trials(moved) == before and moved.user_attrs == attributes
    with pytest.raises(InputError, match=r"study 'there' is kept in a database: give search.storage=postgresql"):
        load_or_create(journal, "there", {"seed": 1}, fresh=False)
    with pytest.raises(InputError, match=r"study 'there' is kept in a database already, got to=postgresql"):
        copy_study(tmp_path, "there", server.url)
    with pytest.raises(InputError, match=f"study 'there' is being run by process {os.getpid()} on "):
        copy_study(tmp_path, "there", "journal")


def test_a_study_comes_out_of_the_database(server: Server, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from search.study.opening import load_or_create\n"
        "from tests.search.study.test_database import _fill\n"
        "study, _ = load_or_create(Path(sys.argv[1]), 'back', {'seed': 1}, fresh=False, database=sys.argv[2])\n"
        "_fill(study)"
    )
    journal = tmp_path / "studies" / "back.journal"
    # In a process of its own, which owns the study while it lives.
    subprocess.run([sys.executable, "-c", code, str(journal), server.url], check=True, capture_output=True)
    before = _trials(optuna.load_study(study_name="back", storage=open_database(server.url)))
    assert len(before) == 3
    assert "the database keeps its own" in copy_study(tmp_path, "back", "journal")
    study, existed = load_or_create(journal, "back", {"seed": 1}, fresh=False)
    assert existed and _trials(study) == before
    with pytest.raises(InputError, match=r"the database holds a study 'back' already"):
        copy_study(tmp_path, "back", server.url)
    with pytest.raises(InputError, match=r"is kept in .*back.journal; python -m search.copy_study copies it"):
        load_or_create(journal, "back", {"seed": 1}, fresh=False, database=server.url)


def test_a_lost_connection_is_made_anew_with_the_lock(server: Server) -> None:
    said: list[str] = []
    study = optuna.create_study(
        storage=open_database(server.url, lock=StudyLock(server.url, "lost"), say=said.append), study_name="lost"
    )
    server.stop()
    threading.Timer(2, server.start).start()
    _fill(study)
    assert len(study.trials) == 3
    assert len(said) == 1 and said[0].endswith("Waiting for it, 300 s at most.")
    with pytest.raises(InputError, match=r"study 'lost' is being run by process"):
        open_database(server.url, lock=StudyLock(server.url, "lost"))


def test_a_server_that_stays_away_stops_the_search(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(
        storage=open_database(server.url, lock=StudyLock(server.url, "away")), study_name="away"
    )
    _fill(study)
    monkeypatch.setattr(database, "_PATIENCE_SECONDS", 1.0)
    server.stop()
    try:
        words = r"cannot be opened .* run the same command again once it works"
        with pytest.raises(StoreError, match=words), database_errors(server.url):
            _fill(study)
        with pytest.raises(InputError, match=r"search.storage=.* cannot be opened"):
            check_database(server.url)
    finally:
        server.start()
    assert len(study.trials) == 3


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_search_in_a_database_is_that_in_a_journal_though_the_server_is_started_anew(
    tiny: tuple[str, ...], server: Server, tracking_root: Path, run_search: Callable[..., Any]
) -> None:
    common = (*tiny, "executor=inline", "search.trials=6", "search.evidence=false", "tracking.report=false")
    assert run_search(*common, "search.study=in-journal").code == 0
    command = [sys.executable, "-m", "search", *common, "search.study=in-database", f"search.storage={server.url}"]
    with running(command) as process:
        process.send_signal(signal.SIGSTOP)  # it would be at its end before the second one looks
        second = run_search(*common, "search.study=in-database", f"search.storage={server.url}")
        server.stop()
        server.start()
        process.send_signal(signal.SIGCONT)
        said = rest_of(process)
    if process.returncode:  # the server went away in the middle of a write
        assert process.returncode == 2 and "run the same command again once it works" in said, said
        again = run_search(*common, "search.study=in-database", f"search.storage={server.url}")
        assert again.code == 0 and "continued with" in again.out, again
    assert second.code == 2 and "study 'in-database' is being run by process" in second.err
    found, expected = (load_study(name, tracking_root) for name in ("in-database", "in-journal"))
    assert [(t.slot, t.value, t.curve, t.learning_rate, t.outcome) for t in found.trials] == [
        (t.slot, t.value, t.curve, t.learning_rate, t.outcome) for t in expected.trials
    ]
    assert len(found.trials) == 6 and found.unfinished == 0 and found.winner is not None
