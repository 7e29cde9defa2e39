"""A search whose trials are stopped by maps, through the command line: what is kept, logged and shown agrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from explain.evidence.trial_registry import TRIAL_STATISTICS
from search.study.record import finished_trials
from search.study.storage import open_storage
from search.tracking.tracker import tracking_uri


def _artifact(client: MlflowClient, run_id: str, name: str) -> bytes:
    return Path(client.download_artifacts(run_id, name)).read_bytes()


def _attributes(root: Path, name: str) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    study = optuna.load_study(study_name=name, storage=open_storage(root / "studies" / f"{name}.journal"))
    return study.user_attrs, {t.user_attrs["slot"]: t.user_attrs for t in finished_trials(study)}


@pytest.mark.slow
@pytest.mark.long
def test_what_was_stopped_says_why_with_pictures_and_both_executors_say_the_same(
    tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Callable[..., SimpleNamespace]
) -> None:
    arguments = (
        *tiny, "search.pruner=maps", "search.trials=7", "search.startup_trials=7", "trainer.epochs=5",
        "trainer.batch_size=8", "space.freeze_depth=[5,8]", "tracking.report=true",
    )  # fmt: skip
    for name, more in (("maps-inline", ()), ("maps-local", ("executor=local", "executor.workers=1"))):
        outcome = run_search_warm(*arguments, *more, f"search.study={name}")
        assert outcome.code == 0, outcome.err
    study, trials = _attributes(tracking_root, "maps-inline")
    _, local = _attributes(tracking_root, "maps-local")
    assert {slot: (a["outcome"], a["maps"]) for slot, a in trials.items()} == {
        slot: (a["outcome"], a["maps"]) for slot, a in local.items()
    }
    assert all(set(of) <= set(TRIAL_STATISTICS) for a in trials.values() for of in a["maps"].values())
    pruned = {slot: a for slot, a in trials.items() if a["outcome"] == "pruned"}
    assert pruned  # of six trials that may be stopped, at most a third passes each rung
    client = MlflowClient(tracking_uri(tracking_root), registry_uri=tracking_uri(tracking_root))
    rows = json.loads(_artifact(client, study["parent"], "stopped/trials.json"))
    assert {row["slot"] for row in rows} == set(pruned)
    page = _artifact(client, study["parent"], "report/report.html").decode()
    data = json.loads(_artifact(client, study["parent"], "report/report.json"))
    assert data["stopped"] == rows and "Stopped by their maps" in page
    for row in rows:
        own = pruned[row["slot"]]
        assert row["epoch"] == max(map(int, own["maps"])) and row["picture"]
        picture = _artifact(client, study["parent"], f"stopped/trial-{row['slot']}.png")
        assert picture.startswith(b"\x89PNG")
        assert _artifact(client, own["run_id"], "figures/stopped_by_maps.png").startswith(b"\x89PNG")
        if row["words"]:
            assert row["value"] < row["others"] and row["words"] in page
        metrics = client.get_run(own["run_id"]).data.metrics
        assert metrics["maps_mirrored_answers"] == pytest.approx(own["maps"][str(row["epoch"])]["mirrored_answers"][""])
    assert not (tracking_root / "studies" / "maps-inline.waiting").exists()
