"""What the user deletes in MLflow's UI: a line with the way out, and the way out works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from search import load_study
from search.study.opening import open_study
from search.study.record import TrialRecord
from search.tracking.tracker import tracking_uri
from tests.store_copies import copy_store

pytestmark = pytest.mark.slow  # each is two searches or more, in a store of its own

RESTORED = "tracking.restore=true"


@pytest.fixture
def store(finished: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """A copy of the finished study, in which things are deleted, and the command that would go on with it."""
    root = tmp_path / "mlruns"
    copy_store(finished.root, root)
    client = MlflowClient(tracking_uri(root), registry_uri=tracking_uri(root))
    arguments = (*finished.arguments, "search.trials=5", f"tracking.root={root}")
    return SimpleNamespace(root=root, client=client, arguments=arguments, run=load_study("tiny", root).run_id or "")


def refused(outcome: Any, *words: str) -> None:
    """One line with these words, exit code 2."""
    assert outcome.code == 2, outcome.err
    assert outcome.err.count("\n") == 1 and all(word in outcome.err for word in words), outcome.err


def test_a_deleted_study_is_restored_or_begun_anew(store: SimpleNamespace, run_search_warm: Callable[..., Any]) -> None:
    children = [t.run_id for t in load_study("tiny", store.root).trials]
    for run in (store.run, *children):  # MLflow's UI deletes a run with those below it
        store.client.delete_run(run)
    refused(run_search_warm(*store.arguments), f"run {store.run} was deleted in MLflow", RESTORED, "search.fresh=true")
    outcome = run_search_warm(*store.arguments, RESTORED)
    assert outcome.code == 0, outcome.err
    assert "continued with 4 of 5 trials finished" in outcome.out
    assert {store.client.get_run(run).info.lifecycle_stage for run in (store.run, *children)} == {"active"}

    store.client.delete_run(store.run)
    outcome = run_search_warm(*store.arguments, "search.trials=1", "search.fresh=true")
    assert outcome.code == 0, outcome.err
    assert load_study("tiny", store.root).run_id != store.run


@pytest.mark.long  # as a deleted study
def test_a_deleted_experiment_is_restored_or_another_is_taken(
    store: SimpleNamespace, run_search_warm: Callable[..., Any]
) -> None:
    store.client.delete_experiment("1")
    refused(run_search_warm(*store.arguments), "experiment 'thawline' was deleted", RESTORED, "tracking.experiment")
    other = ("tracking.experiment=other", "search.study=new", "search.trials=1")
    outcome = run_search_warm(*store.arguments, *other)
    assert outcome.code == 0, outcome.err
    outcome = run_search_warm(*store.arguments, RESTORED)
    assert outcome.code == 0, outcome.err
    assert store.client.get_run(store.run).info.status == "FINISHED"


def test_a_report_of_a_deleted_study_says_the_way_out(
    store: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    from search.report.__main__ import main

    store.client.delete_run(store.run)
    assert main(["study=tiny", f"root={store.root}"]) == 2
    said = capsys.readouterr().err
    assert RESTORED in said and said.count("\n") == 1


def test_deleted_runs_of_trials_do_not_stop_a_study(
    store: SimpleNamespace, run_search_warm: Callable[..., Any]
) -> None:
    """One of a finished trial, in the bin; one of a trial that a killed driver left waiting, gone for good."""
    study = open_study(store.root, "tiny")
    store.client.delete_run(TrialRecord(study.get_trials()[0]).run_id)
    params = study.get_trials()[1]
    study.enqueue_trial(params.params)
    left = study.ask(params.distributions)
    left.report(0.5, 1)
    for name, value in {"slot": 4, "attempt": 0, "run_id": "f" * 32, "waiting": True}.items():
        left.set_user_attr(name, value)
    outcome = run_search_warm(*store.arguments)
    assert outcome.code == 0, outcome.err
    trials = [t for t in open_study(store.root, "tiny").get_trials() if t.user_attrs["slot"] == 4]
    assert trials[0].state is TrialState.FAIL and "error" not in trials[0].user_attrs
    assert trials[-1].state is not TrialState.FAIL and trials[-1].user_attrs["attempt"] == 1


@pytest.mark.long  # three searches
def test_a_study_whose_model_was_deleted_does_not_name_another_of_its_number(
    store: SimpleNamespace, run_search_warm: Callable[..., Any]
) -> None:
    arguments = (*store.arguments[:-2], f"tracking.root={store.root}")
    winner = load_study("tiny", store.root).winner
    assert winner is not None
    store.client.set_registered_model_alias("thawline", "challenger", winner.version)
    assert f"Model: models:/thawline@challenger (version {winner.version}).\n" in run_search_warm(*arguments).out
    store.client.delete_registered_model_alias("thawline", "challenger")
    assert f"Model: models:/thawline/{winner.version} (version {winner.version}).\n" in run_search_warm(*arguments).out
    store.client.delete_registered_model("thawline")
    gone = f"Model: version {winner.version} of thawline was deleted by hand; search.fresh=true makes one anew.\n"
    assert gone in run_search_warm(*arguments).out
    other = store.client.create_run("1").info.run_id
    store.client.create_registered_model("thawline")
    while store.client.create_model_version(
        "thawline", (store.root / "artifacts" / other).as_uri(), other
    ).version < int(winner.version):
        pass
    assert gone in run_search_warm(*arguments).out
