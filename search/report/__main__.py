"""`python -m search.report study=NAME`: one page on a study, logged with its run; works while it still runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.command_line.arguments import read_arguments, with_whole_names
from search.command_line.exits import run_command
from search.invocation import typed
from search.settings.field import required, setting

__all__ = ["main"]

_USAGE = """usage: {it} study=NAME [root=mlruns] [to=FILE]

Makes the report of a study: one self-contained HTML page, logged with the study's run in MLflow as report/report.html,
its data beside it as report.json.

  study=NAME   the study, as a search prints it
  root=FOLDER  tracking.root of the search (default: mlruns)
  to=FILE      write the page here too"""


@dataclass(frozen=True)
class Arguments:
    """Arguments of the command."""

    study: str = required("the study, as a search prints it")
    root: Path = setting(Path("mlruns"), "tracking.root of the search")
    to: Path | None = setting(None, "write the page here too")


def main(arguments: Sequence[str]) -> int:
    """Write a report; returns the exit code: 0, or 2 for bad input."""
    return run_command(
        "search.report", arguments, lambda: _USAGE.format(it=typed("report")), lambda: _report(arguments)
    )


def _report(words: Sequence[str]) -> int:
    arguments = read_arguments(
        Arguments, with_whole_names(words, {"tracking.root": "root"}), usage="study=NAME root=FOLDER to=FILE"
    )
    import optuna
    from rich.console import Console

    from search.report.writing import write

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    report = write(arguments.study, arguments.root, Console(stderr=True), arguments.to)
    for note in report.notes:
        print(f"search.report: {note}", file=sys.stderr)
    print(f"Report: {arguments.to or report.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
