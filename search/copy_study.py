"""`python -m search.copy_study`: a study from its journal into a database, or back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.errors import InputError, printable
from search.command_line.arguments import read_arguments
from search.command_line.exits import run_command
from search.settings.field import required, setting

__all__ = ["copy_study", "main"]

_USAGE = """\
usage: python -m search.copy_study study=NAME to=journal|URL [tracking.root=FOLDER]

Copies a study, with all its trials, from its journal into the database at URL
(postgresql+psycopg2://USER@HOST/DATABASE), or from its database into a journal (to=journal). Searches go on in the new
place: give search.storage=URL, or leave it out for a journal. A journal that was copied is kept under another name; a
study that was copied out of a database stays there. Nothing else moves: runs, files and caches stay in FOLDER (default
mlruns). Exit code 2: bad input."""


@dataclass(frozen=True)
class Arguments:
    """Arguments of the command."""

    study: str = required("name of the study")
    to: str = required("journal, or the URL of a database")
    root: Path = setting(Path("mlruns"), "folder of the searches", name="tracking.root")


def copy_study(root: Path, name: str, to: str) -> str:
    """Copy a study to the other place; returns what to say of it.

    Raises:
        InputError: no such study, one of that name in the other place, or a search is running it.
    """
    import optuna
    from optuna.exceptions import DuplicatedStudyError

    from search.settings.rules import check_storage
    from search.study.database import StudyLock, database_errors, open_database
    from search.study.opening import database_of, open_study, point_to_database
    from search.study.ownership import owned
    from search.study.storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    open_study(root, name)
    journal = root / "studies" / f"{name}.journal"
    there = database_of(journal)
    if (to == "journal") == (there is None):
        where = "a journal" if there is None else "a database"
        raise InputError(f"study {name!r} is kept in {where} already, got to={printable(to)}")
    if there is not None:
        with database_errors(there), closing(StudyLock(there, name)) as lock:
            source = open_database(there, lock=lock)
            new = journal.with_suffix(".journal.new")
            new.unlink(missing_ok=True)
            optuna.copy_study(from_study_name=name, from_storage=source, to_storage=open_storage(new))
        new.replace(journal)
        point_to_database(journal, None)
        return f"Study {name!r} is in {printable(journal)}; the database keeps its own."
    check_storage(to)
    with owned(root / "studies", name), database_errors(to), closing(StudyLock(to, name)) as lock:
        target = open_database(to, lock=lock)
        try:
            optuna.copy_study(from_study_name=name, from_storage=open_storage(journal), to_storage=target)
        except DuplicatedStudyError:
            raise InputError(f"the database holds a study {name!r} already; it stays as it is") from None
        point_to_database(journal, to)
        kept = journal.with_suffix(".journal.copied")
        journal.replace(kept)
    return f"Study {name!r} is in the database: give search.storage={printable(to)}; its journal is {printable(kept)}."


def main(arguments: Sequence[str]) -> int:
    """Copy, say where the study is; returns 0, or 2 for bad input."""
    return run_command("search.copy_study", arguments, lambda: _USAGE, lambda: _run(arguments))


def _run(words: Sequence[str]) -> int:
    given = read_arguments(Arguments, words, "study=NAME to=journal|URL tracking.root=FOLDER")
    print(copy_study(given.root, given.study, given.to))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
