"""Examine the winner's configuration where that was not done yet, make the page, and log both with the study's run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from lightning_modules.errors import InputError
from search.report.charts import chart_data, importances
from search.report.findings import ARTIFACT, PREDICTIONS, Findings
from search.report.gathering import gather
from search.report.page import page
from search.study.record import Study, load_study
from search.tracking.runs import ParentRun, read_parent_run

if TYPE_CHECKING:
    from search.tracking.tracker import Tracker
    from search.trial.files import TrialFiles
    from search.trial.task import Task

__all__ = ["DATA", "PAGE", "Report", "examined", "write_report"]

PAGE, DATA = "report/report.html", "report/report.json"
"""Artifacts of the parent run."""

_EVIDENCE = "figures/evidence.png"


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        html: the page.
        path: of the page among MLflow's artifacts.
        notes: what is missing from it, and why.
    """

    html: str
    path: Path
    notes: tuple[str, ...]


def write_report(name: str, root: Path, tracker: Tracker, findings: Findings | None, notes: tuple[str, ...]) -> Report:
    """Make the page and log it, with its data, to the study's run.

    Args:
        name: of the study.
        root: `tracking.root`.
        tracker: of the study's experiment.
        findings: of `examined`.
        notes: what is missing, and why.

    Raises:
        InputError: no such study, or it has no run yet.
    """
    study, run = study_and_run(name, root)
    shares = importances(study)
    data = gather(study, run, shares, findings, notes)
    winner = None if study.winner is None else study.winner.slot
    charts = chart_data(study, winner, shares)
    html = page(data, charts, findings.pictures if findings is not None else {}, run.artifact(_EVIDENCE))
    plain = data.to_json()
    tracker.log_text(run.run_id, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False), DATA)
    tracker.log_text(run.run_id, html, PAGE)
    tracker.log(run.run_id, {f"importance_{name}": share for name, share in shares})
    return Report(html, read_parent_run(root, run.run_id).artifact_path(PAGE) or run.folders[0] / PAGE, tuple(notes))


def study_and_run(name: str, root: Path) -> tuple[Study, ParentRun]:
    """The study and its parent run.

    Raises:
        InputError: no such study, or it has no run yet.
    """
    study = load_study(name, root)
    if study.run_id is None:
        raise InputError(f"study {name!r} has no run yet: its search stopped before the first trial")
    return study, read_parent_run(root, study.run_id)


def examined(
    study: Study,
    run: ParentRun,
    tracker: Tracker,
    task: Callable[[], Task],
    files: TrialFiles,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Findings | None:
    """What the winning configuration does on validation images: read where it was logged, else found out and logged.

    Args:
        study: the study.
        run: its parent run.
        tracker: of its experiment.
        task: makes the study's task; called only where it is needed.
        files: where the winning trial's network lies until the study is complete.
        cancelled: asked before every training batch; True raises `TrialCancelledError`.

    Returns:
        None while there is no winner.

    Raises:
        InputError: of `task`: images that are gone, or changed since.
    """
    if study.winner is None:
        return None
    kept = _kept(run)
    if kept is not None and kept.slot == study.winner.slot:
        return kept
    from search.outcome.slides import WINNER
    from search.report.examination import examine
    from search.report.judged_images import image_name

    made = task()
    found = examine(made, study.winner, files.checkpoint(study.winner.slot), cancelled=cancelled)
    findings, classes = found.findings, made.classes
    rows = [
        [image_name(made, int(row)), classes[made.index.labels[row]], *(round(float(p), 6) for p in probabilities)]
        for row, probabilities in zip(found.rows, found.probabilities, strict=True)
    ]
    columns = ["path", "label", *(f"p({label})" for label in classes)]
    tracker.log_table(run.run_id, pd.DataFrame(rows, columns=columns), PREDICTIONS)
    for run_id in (run.run_id, *(trial.run_id for trial in study.trials if trial.slot == findings.slot)):
        tracker.log_images(run_id, found.slides, WINNER)
    tracker.log_text(run.run_id, findings.to_json(), ARTIFACT)
    tracker.log(run.run_id, _metrics(findings))
    return findings


def _metrics(findings: Findings) -> dict[str, float]:
    metrics = {
        "out_of_sample_accuracy": findings.accuracy,
        "out_of_sample_images": float(findings.judged),
        "suspect_labels": float(findings.suspects_found),
        "confused_pairs": float(findings.pairs_found),
    }
    for one in findings.measures:
        for key in ("entropy", "area", "dispersion", "relative_difference", "dead"):
            value = getattr(one, key)
            if value is not None:
                metrics[f"map_{key}/{one.block}"] = value
    return metrics


def _kept(run: ParentRun) -> Findings | None:
    raw = run.artifact(ARTIFACT)
    if raw is None:
        return None
    try:
        return Findings.from_json(raw.decode("utf-8"))
    except (ValueError, KeyError, TypeError):  # of another version: made again
        return None


def restored(study: Study, run: ParentRun, root: Path, console: Console) -> Task:
    """The study's task, from what its run says of the settings.

    Raises:
        InputError: images that are gone, or changed since.
    """
    from search.report.restored_task import restored_settings, restored_task

    settings = restored_settings(run.params, {"tracking.root": root, "search.fresh": False})
    return restored_task(settings, study.identity, console)
