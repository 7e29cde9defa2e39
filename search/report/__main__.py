"""`python -m search.report study=NAME`: one page on a study, logged with its run; works while it still runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from lightning_modules.errors import InputError, printable
from search.command_line.exits import let_threads_sleep, refuse

if TYPE_CHECKING:
    from rich.console import Console

    from search.report.writing import Report
    from search.tracking.tracker import Tracker
    from search.trial.files import TrialFiles
    from search.trial.task import Task

__all__ = ["main", "report_finished_search", "write"]

_USAGE = """python -m search.report study=NAME [root=mlruns] [to=FILE]

Makes the report of a study: one self-contained HTML page, logged with the study's run in MLflow as report/report.html,
its data beside it as report.json.

  study=NAME   the study, as python -m search prints it
  root=FOLDER  tracking.root of the search (default: mlruns)
  to=FILE      write the page here too
"""


def write(name: str, root: Path, console: Console, to: Path | None = None) -> Report:
    """Make the report of a study, in whatever state it is.

    Args:
        name: of the study.
        root: `tracking.root` of the search.
        console: told of progress.
        to: where to write the page beside MLflow.

    Raises:
        InputError: no such study, or a file that cannot be written; nothing has been written.
    """
    from search.report.writing import examined, restored, study_and_run, write_report

    if to is not None and (to.is_dir() or not to.absolute().parent.is_dir()):
        reason = "it is a folder" if to.is_dir() else f"there is no folder {printable(to.absolute().parent)}"
        raise InputError(f"to must name a file in a folder that exists, got {printable(to)}: {reason}")
    study, run = study_and_run(name, root)
    from search.tracking.tracker import Tracker
    from search.trial.files import TrialFiles

    tracker, files = Tracker(root, run.experiment), TrialFiles.of(root / "studies" / f"{name}.journal")
    notes: tuple[str, ...] = ()
    findings = None
    try:
        with console.status("Examining the winning configuration"):
            findings = examined(study, run, tracker, partial(restored, study, run, root, console), files)
    except InputError as error:
        notes = (f"No validation image could be examined: {error}",)
    report = write_report(name, root, tracker, findings, notes)
    if to is not None:
        to.write_text(report.html, encoding="utf-8")
    return report


def report_finished_search(
    task: Task,
    name: str,
    tracker: Tracker,
    console: Console,
    files: TrialFiles,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path | None:
    """The report of a search that has just tested its winner; returns where it is.

    A search of hours does not fail because of its report: what goes wrong is logged with the run as
    report/traceback.txt and said in a line, and None is returned.

    Args:
        task: of the study.
        name: of the study.
        tracker: of its experiment.
        console: told when there is no report.
        files: where the winning trial's network lies.
        cancelled: asked before every training batch; True raises `TrialCancelledError`.
    """
    from search.errors import TrialCancelledError
    from search.report.writing import examined, study_and_run, write_report

    root = task.settings.tracking.root
    run_id = ""
    try:
        study, run = study_and_run(name, root)
        run_id = run.run_id
        findings = examined(study, run, tracker, lambda: task, files, cancelled=cancelled)
        return write_report(name, root, tracker, findings, ()).path
    except TrialCancelledError:
        raise
    except Exception as error:
        if run_id:
            tracker.log_text(run_id, traceback.format_exc(), "report/traceback.txt")
        reason = str(error).strip().split("\n")[0]
        console.print(
            f"No report: {type(error).__name__}: {printable(reason)}; python -m search.report study={quote(name)} "
            "tries again.",
            highlight=False,
            markup=False,
        )
        return None


def main(arguments: Sequence[str]) -> int:
    """Write a report; returns the exit code: 0, or 2 for bad input."""
    if "--help" in arguments or "-h" in arguments:
        print(_USAGE, end="")
        return 0
    let_threads_sleep()  # the winner's configuration may be trained once more
    try:
        name, root, to = _parsed(arguments)
        import optuna
        from rich.console import Console

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        report = write(name, root, Console(stderr=True), to)
    except InputError as error:
        return refuse("search.report", error)
    for note in report.notes:
        print(f"search.report: {note}", file=sys.stderr)
    print(f"Report: {to if to is not None else report.path}")
    return 0


def _parsed(arguments: Sequence[str]) -> tuple[str, Path, Path | None]:
    given: dict[str, str] = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or key not in ("study", "root", "to"):
            raise InputError(f"unknown argument {printable(argument)!r}; accepted: study=NAME root=FOLDER to=FILE")
        if key in given or not value:
            what = "is given twice" if key in given else "must not be empty"
            raise InputError(f"{key} {what}; accepted: study=NAME root=FOLDER to=FILE")
        given[key] = value
    if "study" not in given:
        raise InputError("study must be named, got nothing; accepted: study=NAME root=FOLDER to=FILE")
    to = Path(given["to"]) if "to" in given else None
    return given["study"], Path(given.get("root", "mlruns")), to


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
