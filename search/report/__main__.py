"""`python -m search.report study=NAME`: one page on a study, logged with its run; works while it still runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from lightning_modules.errors import InputError, printable
from search.command_line.arguments import read_arguments
from search.command_line.exits import let_threads_sleep, run_command
from search.settings.field import required, setting

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
  to=FILE      write the page here too"""


@dataclass(frozen=True)
class Arguments:
    """Arguments of the command."""

    study: str = required("the study, as python -m search prints it")
    root: Path = setting(Path("mlruns"), "tracking.root of the search")
    to: Path | None = setting(None, "write the page here too")


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
    return run_command("search.report", arguments, lambda: _USAGE, lambda: _report(arguments))


def _report(words: Sequence[str]) -> int:
    let_threads_sleep()  # the winner's configuration may be trained once more
    arguments = read_arguments(Arguments, words, usage="study=NAME root=FOLDER to=FILE")
    import optuna
    from rich.console import Console

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    report = write(arguments.study, arguments.root, Console(stderr=True), arguments.to)
    for note in report.notes:
        print(f"search.report: {note}", file=sys.stderr)
    print(f"Report: {arguments.to or report.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
