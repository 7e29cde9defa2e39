"""What the MLflow run of a month holds of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from search.retraining.champion import BASELINE
from search.retraining.record import MonthRecord

if TYPE_CHECKING:
    from search.retraining.month_run import MonthRun

__all__ = ["report_month"]


def report_month(run: MonthRun, record: MonthRecord) -> dict[str, Any]:
    """Log the record's numbers, sentences and file; and the baseline of a challenger that will be champion."""
    session = run.session
    steps = session.ledger.steps(run.row)
    metrics = record.metrics() | {"retrain_seconds": session.seconds(run.row)}
    tags = record.tags()
    if "compare" in steps:
        numbers = steps["compare"][0]["numbers"]
        metrics |= {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        metrics |= {f"retrain_{n}": steps["search"][0].get(n, 0.0) for n in ("epoch_equivalents", "image_passes")}
        tags |= {"depth_of_retraining": steps["depth"][0]["action"]}
    session.log(run.run_id, metrics, tags)
    session.tracker.log_text(run.run_id, json.dumps(record.to_json(), indent=1, ensure_ascii=False), "month.json")
    if record.outcome == "promoted":
        _keep_baseline(run, steps["search"][0]["winner"]["version"])
    return {}


def _keep_baseline(run: MonthRun, version: str) -> None:
    import numpy as np

    from search.models import resolve_model

    session = run.session
    net = resolve_model(f"models:/{session.model_name}/{version}", session.settings.tracking.root).net
    rows = np.union1d(run.plan.newest, run.plan.regression)
    folder = session.folder(run.row)
    folder.mkdir(parents=True, exist_ok=True)
    run.baseline(net.to(session.device), rows).save(folder / BASELINE)
    session.tracker.log_file(run.run_id, folder / BASELINE)
