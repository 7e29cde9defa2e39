"""The view that MLflow's UI opens on: trials, the best first, with the columns and charts that say what they did.

MLflow keeps a view that somebody shares as a tag of the experiment, and its address names the tag. This is one.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["TRIALS_VIEW", "trials_view", "view_addresses"]

_KEY = "trials"

TRIALS_VIEW = f"mlflow.sharedViewState.{_KEY}"
"""Tag of an experiment that holds the view."""

_SCORE = "final_val_macro_f1"


def trials_view() -> str:
    """The value of the tag, as MLflow's UI reads it.

    Runs of trials alone are shown: a list that is sorted shows children below their parents, wherever these stand.
    """
    section = {"uuid": "scores", "name": "Scores of trials", "display": True, "isReordered": False}
    curves = {"uuid": "curves", "name": "Validation curves", "display": True, "isReordered": False}
    return json.dumps(
        {
            "searchFilter": "tags.`optimizer` LIKE '%' AND tags.`freeze_depth` LIKE '%'",
            "orderByKey": f"metrics.`{_SCORE}`",
            "orderByAsc": False,
            "selectedColumns": [
                f"metrics.`{_SCORE}`", "params.`freeze_depth`", "params.`optimizer`", "params.`learning_rate`",
                "tags.`status`", "tags.`study`",
            ],
            "columnWidths": {},
            "runsHiddenMode": "FIRST_20_RUNS",
            "compareRunSections": [section, curves],
            "compareRunCharts": [
                _chart("PARALLEL", "depths", "scores", selectedParams=["freeze_depth", "optimizer", "learning_rate"],
                       selectedMetrics=[_SCORE], showAllRuns=False),
                _chart("SCATTER", "by-depth", "scores", xaxis={"key": "freeze_depth", "type": "PARAM"},
                       yaxis={"key": _SCORE, "type": "METRIC"}),
                _curve("val_macro_f1"),
                _curve("val_loss"),
            ],
        }
    )  # fmt: skip


def _chart(kind: str, name: str, section: str, **more: object) -> dict[str, object]:
    common = {"type": kind, "uuid": name, "metricSectionId": section, "runsCountToCompare": 20}
    return {**common, "deleted": False, "isGenerated": False, **more}


def _curve(metric: str) -> dict[str, object]:
    return _chart(
        "LINE", metric, "curves", metricKey=metric, selectedMetricKeys=[metric], lineSmoothness=0, scaleType="linear",
        xAxisScaleType="linear", xAxisKey="step", selectedXAxisMetricKey="", useGlobalXaxisKey=True, range={},
    )  # fmt: skip


def view_addresses(root: Path, port: int) -> dict[str, str]:
    """Experiment -> address of its view in the UI on this machine; its list of runs where an older search made it."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT e.experiment_id, e.name, t.value IS NOT NULL FROM experiments e LEFT JOIN experiment_tags t "
            "ON t.experiment_id = e.experiment_id AND t.key = ? WHERE e.lifecycle_stage = 'active' AND EXISTS "
            "(SELECT 1 FROM runs r WHERE r.experiment_id = e.experiment_id) ORDER BY e.experiment_id",
            (TRIALS_VIEW,),
        ).fetchall()
    found = {}
    for number, name, saved in rows:
        view = f"&viewStateShareKey={_KEY}" if saved else ""
        found[str(name)] = f"http://127.0.0.1:{port}/#/experiments/{number}/runs?workflowType=machine_learning{view}"
    return found
