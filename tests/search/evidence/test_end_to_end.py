"""Evidence through the command line: collected once, kept with the study, logged, and read by the prior."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from explain.evidence import SCORERS
from search.evidence.record import Evidence
from search.study.record import StudyRecord
from search.tracking.tracker import tracking_uri


@pytest.fixture(scope="session")
def run_search(run_search_warm):  # type: ignore[no-untyped-def]
    return run_search_warm


def study_of(root: Path, name: str):  # type: ignore[no-untyped-def]
    import optuna

    from search.study.storage import open_storage

    return optuna.load_study(study_name=name, storage=open_storage(root / "studies" / f"{name}.journal"))


def kept(root: Path, name: str) -> Evidence:
    found = StudyRecord(study_of(root, name)).evidence
    assert found is not None
    return found


@pytest.mark.slow
def test_evidence_is_collected_logged_and_steers(tiny, tracking_root, run_search) -> None:  # type: ignore[no-untyped-def]
    outcome = run_search(*tiny, "search.study=ev", "search.prior=evidence", "search.trials=3")
    assert outcome.code == 0, outcome.err
    assert "Prior over freeze depths 0..8: evidence" in outcome.out
    evidence = kept(tracking_root, "ev")
    expected = {name for name in SCORERS if name not in ("agreement_of_change", "advisor")} | {"evidence"}
    assert set(evidence.scorers) == expected
    for scorer in evidence.scorers.values():
        assert scorer.probabilities.sum() == pytest.approx(1)
        assert scorer.probabilities.min() >= 0.2 / 9 * (1 - 1e-9)
        assert scorer.values.shape == ((8,) if scorer.kind == "block" else (9,))
        assert scorer.depth_scores.shape == (9,)
    np.testing.assert_array_equal(evidence.probabilities, evidence.scorers["evidence"].probabilities)
    assert evidence.cost.seconds > 0 and evidence.cost.backward_passes > 0
    assert len(evidence.maps.mean) == 8 and max(max(m.shape) for m in evidence.maps.mean) <= 32
    assert evidence.maps.row in evidence.validation_rows
    assert not set(evidence.training_rows) & set(evidence.validation_rows)

    import mlflow

    mlflow.set_tracking_uri(tracking_uri(tracking_root))
    parent = study_of(tracking_root, "ev").user_attrs["parent"]
    logged = json.loads(mlflow.artifacts.load_text(f"runs:/{parent}/evidence.json"))
    assert logged == evidence.to_json()
    run = mlflow.get_run(parent).data
    assert run.metrics["evidence_seconds"] > 0
    assert run.tags["prior"].startswith("Prior over freeze depths 0..8: evidence")


@pytest.mark.slow
@pytest.mark.long  # two searches
def test_a_continued_study_keeps_its_evidence(tiny, tracking_root, run_search) -> None:  # type: ignore[no-untyped-def]
    arguments = (*tiny, "search.study=ev2", "search.prior=probe")
    assert run_search(*arguments, "search.trials=2").code == 0
    first = kept(tracking_root, "ev2")
    outcome = run_search(*arguments, "search.trials=3")
    assert outcome.code == 0, outcome.err
    assert " scorers." not in outcome.out, "nothing is collected twice"
    assert kept(tracking_root, "ev2").to_json() == first.to_json()
    assert first.prior == "linear_probe"


@pytest.mark.parametrize(
    ("study", "extra", "recorded"),
    [
        ("ev3", ("search.evidence=false",), None),
        ("ev4", ("search.evidence=false", "search.prior=deepest"), {"static", "deepest", "monotone"}),
        ("ev5", ("search.prior=evidence", "space.freeze_depth=[8,8]", "space.default_freeze_depth=8"), None),
        ("ev6", ("search.prior=evidence", "trainer.warmup=false"), None),
    ],
)
@pytest.mark.slow
def test_no_more_is_collected_than_is_needed(tiny, tracking_root, run_search, study, extra, recorded) -> None:  # type: ignore[no-untyped-def]
    outcome = run_search(*tiny, f"search.study={study}", "search.trials=1", *extra)
    assert outcome.code == 0, outcome.err
    found = StudyRecord(study_of(tracking_root, study)).evidence
    assert (None if found is None else set(found.scorers)) == recorded
    assert ("No evidence: " in outcome.out) is (study in ("ev5", "ev6"))
    if found is not None:
        assert found.preferred == 8 and found.maps is None and found.cost.forward_passes == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.prior=gradcam", "search.prior must be one of uniform, static, "),
        ("search.prior_floor=0.1", "search.prior_floor must be a number >= 0.2 and <= 1, got 0.1"),
        ("search.prior_trials=0", "search.prior_trials must be a whole number >= 1"),
        ("search.evidence=maybe", "search.evidence must be true or false, got 'maybe'"),
    ],
)
def test_bad_settings_get_one_line(tiny, run_search, override, message) -> None:  # type: ignore[no-untyped-def]
    outcome = run_search(*tiny, override)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
