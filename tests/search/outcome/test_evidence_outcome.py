"""What a search leaves of its evidence when it ends, in MLflow: a table, metrics, a picture."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from search.study.opening import load_study
from search.tracking.tracker import tracking_uri


def _parent(root: Path, study: str) -> Any:
    run_id = load_study(study, root).run_id
    return MlflowClient(tracking_uri(root), registry_uri=tracking_uri(root)).get_run(run_id)


def _table(root: Path, run_id: str) -> dict[str, list[Any]]:
    table = json.loads((root / "artifacts" / run_id / "artifacts" / "scorecard.json").read_text())
    return {name: [row[place] for row in table["data"]] for place, name in enumerate(table["columns"])}


def test_the_scorecard_is_logged_once_a_state_of_the_study_and_not_printed(
    finished: SimpleNamespace, run_search_warm: Any
) -> None:
    assert "scorer" not in finished.outcome.out and "tau" not in finished.outcome.out
    run = _parent(finished.root, finished.study)
    again = run_search_warm(*finished.arguments)  # the study is complete: nothing is trained, all is logged anew
    assert again.code == 0
    table = _table(finished.root, run.info.run_id)
    assert len(set(table["scorer"])) == len(table["scorer"]) > 5
    assert set(table["trials"]) == {4}
    assert not any(name.startswith("scorecard") for name in run.data.metrics)  # a table, not fifty metrics


def test_the_picture_is_logged(finished: SimpleNamespace) -> None:
    run = _parent(finished.root, finished.study)
    place = finished.root / "artifacts" / run.info.run_id / "artifacts" / "figures" / "evidence.png"
    assert place.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_without_evidence_there_is_neither(tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Any) -> None:
    outcome = run_search_warm(
        *tiny, "search.study=no evidence", "search.trials=1", "search.prior=uniform", "search.evidence=false"
    )
    assert outcome.code == 0, outcome.err
    run = _parent(tracking_root, "no evidence")
    assert not any(name.startswith("scorecard") for name in run.data.metrics)
    folder = tracking_root / "artifacts" / run.info.run_id / "artifacts"
    assert not (folder / "scorecard.json").exists() and not (folder / "figures" / "evidence.png").exists()
