"""The report of a study: examine the winner's configuration where that was not done, make the page, log both."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
from rich.console import Console

from lightning_modules.errors import InputError, printable
from lightning_modules.whole_file import whole_file
from search.errors import TrialCancelledError
from search.invocation import typed
from search.outcome.stopped_trials import stopped_picture
from search.report.charts import chart_data, importances
from search.report.findings import ARTIFACT, MAP_MEASURES, PREDICTIONS, Findings
from search.report.gathering import gather
from search.report.page import page
from search.report.so_far import SoFar
from search.report.wrong_images import ARTIFACT as WRONG_IMAGES
from search.report.wrong_images import WrongImages
from search.study.opening import load_study
from search.study.record import Study
from search.tracking.runs import ParentRun, read_parent_run
from search.trial.files import TrialFiles

if TYPE_CHECKING:
    from search.study.run import StudyRun
    from search.tracking.tracker import Tracker
    from search.trial.task import Task

_Kept = TypeVar("_Kept", Findings, WrongImages)

__all__ = ["Report", "report_finished_search", "write"]

_PAGE, _DATA = "report/report.html", "report/report.json"  # artifacts of the parent run
_EVIDENCE, _EVIDENCE_DARK = "figures/evidence.png", "figures/evidence_dark.png"


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        notes: what is missing from it, and why.
    """

    html: str
    path: Path
    notes: tuple[str, ...]


def write(name: str, root: Path, console: Console, to: Path | None = None, so_far: SoFar | None = None) -> Report:
    """Make the report of a study, in whatever state it is.

    Args:
        to: where to write the page beside MLflow.
        so_far: what the best trial has wrong, while there is no winner.

    Raises:
        InputError: no such study, or a file that cannot be written; nothing has been written.
    """
    if to is not None and (to.is_dir() or not to.absolute().parent.is_dir()):
        reason = "it is a folder" if to.is_dir() else f"there is no folder {printable(to.absolute().parent)}"
        raise InputError(f"to must name a file in a folder that exists, got {printable(to)}: {reason}")
    study, run = _study_and_run(name, root)
    from search.tracking.tracker import Tracker

    tracker, files = Tracker(root, run.experiment), TrialFiles.of(root / "studies" / f"{name}.journal")
    notes: list[str] = []
    findings, wrong = None, None
    restored = cache(partial(_restored, study, run, root, console))
    with console.status("Examining the winning configuration"):
        try:
            findings = _examined(study, run, tracker, restored, files)
        except InputError as error:
            notes.append(f"No validation image could be examined: {error}")
        try:
            wrong = _wrong_images(study, run, tracker, root, restored)
        except InputError as error:
            notes.append(f"The wrong test images cannot be shown: {error}")
    report = _write_report(name, root, tracker, findings, wrong, tuple(notes), so_far)
    if to is not None:
        with whole_file(to, alone=False) as temporary:
            temporary.write_text(report.html, encoding="utf-8")
    return report


def report_finished_search(run: StudyRun) -> Path | None:
    """The report of a search that has just tested its winner; returns where it is.

    A search of hours does not fail because of its report: what goes wrong is logged with the run as
    report/traceback.txt and said in a line, and None is returned.
    """
    name, root = run.record.name, run.settings.tracking.root
    run_id = ""
    try:
        study, parent = _study_and_run(name, root)
        run_id = parent.run_id
        findings = _examined(study, parent, run.tracker, lambda: run.task, run.files, cancelled=run.stopping)
        wrong = _wrong_images(study, parent, run.tracker, root, lambda: run.task)
        return _write_report(name, root, run.tracker, findings, wrong, ()).path
    except TrialCancelledError:
        raise
    except Exception as error:
        if run_id:
            run.tracker.log_text(run_id, traceback.format_exc(), "report/traceback.txt")
        reason = str(error).strip().split("\n")[0]
        run.console.print(
            f"No report: {type(error).__name__}: {printable(reason)}; "
            f"{typed('report', f'study={name}', root=root)} tries again.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return None


def _write_report(
    name: str,
    root: Path,
    tracker: Tracker,
    findings: Findings | None,
    wrong: WrongImages | None,
    notes: tuple[str, ...],
    so_far: SoFar | None = None,
) -> Report:
    """Make the page and log it, with its data, to the study's run."""
    study, run = _study_and_run(name, root)
    shares = importances(study)
    data = gather(study, run, shares, findings, wrong, notes, so_far)
    winner = None if study.winner is None else study.winner.slot
    charts = chart_data(study, winner, shares)
    stopped = {one.slot: picture for one in data.stopped if (picture := run.artifact(stopped_picture(one.slot)))}
    html = page(data, charts, (run.artifact(_EVIDENCE), run.artifact(_EVIDENCE_DARK)), stopped)
    plain = data.to_json()
    tracker.log_text(run.run_id, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False), _DATA)
    tracker.log_text(run.run_id, html, _PAGE)
    tracker.log(run.run_id, {f"importance_{name}": share for name, share in shares})
    return Report(html, run.folder / _PAGE, tuple(notes))


def _study_and_run(name: str, root: Path) -> tuple[Study, ParentRun]:
    """The study and its parent run.

    Raises:
        InputError: no such study, or it has no run yet.
    """
    study = load_study(name, root)
    if study.run_id is None:
        raise InputError(f"study {name!r} has no run yet: its search stopped before the first trial")
    return study, read_parent_run(root, study.run_id)


def _examined(
    study: Study,
    run: ParentRun,
    tracker: Tracker,
    task: Callable[[], Task],
    files: TrialFiles,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Findings | None:
    """What the winning configuration does on validation images: read where it was logged, else computed and logged.

    Args:
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
    kept = _read(Findings, run.artifact(ARTIFACT))
    if kept is not None and kept.slot == study.winner.slot:
        return kept
    from search.outcome.figures import MAPS_OF_WINNER
    from search.outcome.test_predictions import image_name
    from search.report.examination import examine

    made = task().of(study.winner.params.get("network"))
    found = examine(made, study.winner, files.checkpoint(study.winner.slot), cancelled=cancelled)
    findings, classes = found.findings, made.classes
    rows = [
        [image_name(made, int(row)), classes[label], *(round(float(p), 6) for p in probabilities)]
        for row, label, probabilities in zip(found.rows, found.labels, found.probabilities, strict=True)
    ]
    columns = ["path", "label", *(f"p({label})" for label in classes)]
    tracker.log_table(run.run_id, pd.DataFrame(rows, columns=columns), PREDICTIONS)
    for run_id in (run.run_id, *(trial.run_id for trial in study.trials if trial.slot == findings.slot)):
        tracker.log_images(run_id, found.slides, MAPS_OF_WINNER)
    tracker.log_text(run.run_id, findings.to_json(), ARTIFACT)
    tracker.log(run.run_id, _metrics(findings))
    # A row a block: as metrics they would be forty charts of one bar each.
    if findings.measures:
        tracker.log_table(run.run_id, pd.DataFrame([asdict(one) for one in findings.measures]), MAP_MEASURES)
    return findings


def _wrong_images(
    study: Study, run: ParentRun, tracker: Tracker, root: Path, task: Callable[[], Task]
) -> WrongImages | None:
    """The test images that the winner has wrong: read where they were logged, else computed and logged.

    Returns:
        None without a winner, or without test images.

    Raises:
        InputError: of `task`, or a model that is gone or damaged.
    """
    winner = study.winner
    if winner is None or winner.test is None:
        return None
    kept = _read(WrongImages, run.artifact(WRONG_IMAGES))
    if kept is not None and kept.version == winner.version:
        return kept
    from search.outcome.test_predictions import ARTIFACT as PREDICTED
    from search.outcome.test_predictions import log_test_predictions, read_test_predictions
    from search.report.wrong_examination import answer_images, examine_wrong
    from search.tracking.models import resolve_model

    name = run.params.get("tracking.model_name", "thawline")
    model = resolve_model(f"models:/{name}/{winner.version}", root)
    made = task().of(winner.params.get("network"))
    answers = read_test_predictions(run.artifact(PREDICTED), made, winner.version)
    if answers is None:
        answers = answer_images(made, model.net, made.splits.test, model.card.temperature)
        log_test_predictions(tracker, run.run_id, made, winner.version, answers)
    found, _ = examine_wrong(made, model.net, winner.version, answers)
    tracker.log_text(run.run_id, found.to_json(), WRONG_IMAGES)
    return found


def _metrics(findings: Findings) -> dict[str, float]:
    return {
        "out_of_sample_accuracy": findings.accuracy,
        "out_of_sample_images": float(findings.judged),
        "suspect_labels": float(findings.suspects_found),
        "confused_pairs": float(findings.pairs_found),
    }


def _read(kind: type[_Kept], raw: bytes | None) -> _Kept | None:
    """What was kept; None where nothing was, or what another version wrote, which is made again."""
    if raw is None:
        return None
    try:
        return kind.from_json(raw.decode("utf-8"))
    except ValueError:
        return None


def _restored(study: Study, run: ParentRun, root: Path, console: Console) -> Task:
    """The study's task, from what its run says of the settings.

    Raises:
        InputError: images that are gone, or changed since.
    """
    from search.trial.restored_task import restored_settings, restored_task

    settings = restored_settings(run.params, {"tracking.root": root, "search.fresh": False})
    return restored_task(settings, study.identity, console)
