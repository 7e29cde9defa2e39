"""`python -m search.report study=NAME`: one page on a study, logged with its run; works while it still runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_modules.errors import InputError, printable
from search.command_line.exits import let_threads_sleep, refuse

__all__ = ["main"]

_USAGE = """python -m search.report study=NAME [root=mlruns] [to=FILE]

Makes the report of a study: one self-contained HTML page, logged with the study's run in MLflow as report/report.html,
its data beside it as report.json.

  study=NAME   the study, as python -m search prints it
  root=FOLDER  tracking.root of the search (default: mlruns)
  to=FILE      write the page here too
"""


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

        from search.report.writing import write

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
