"""`python -m search.ui`: MLflow's own UI on the store of the searches, on 127.0.0.1 only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lightning_modules.errors import InputError, printable
from search.command_line.arguments import read_arguments, with_whole_names
from search.command_line.exits import run_command
from search.invocation import typed
from search.settings.field import setting
from search.tracking.saved_view import view_addresses
from search.tracking.store import adopt, check_store, database_uri

__all__ = ["command", "main"]

_USAGE = """\
usage: {it} [root=FOLDER] [port=NUMBER]

Opens MLflow's own UI on http://127.0.0.1:PORT, for this machine only, and prints the address of a view of all trials,
the best first, with their charts. FOLDER is that of the searches (default mlruns),
PORT a number in 1..65535 (default 5000). Ctrl-C ends it. Exit code 2: bad input."""


@dataclass(frozen=True)
class Arguments:
    """Arguments of the command."""

    root: Path = setting(Path("mlruns"), "folder of the searches", name="tracking.root")
    port: int = setting(5000, "port of the page", low=1, high=65_535)


def command(words: Sequence[str]) -> list[str]:
    """The command line that starts the UI, after its addresses were printed.

    Raises:
        InputError: another argument than `Arguments` has, a port that is none, or no store in the folder.
    """
    arguments = read_arguments(Arguments, with_whole_names(words))
    store = arguments.root / "mlflow.db"
    if not check_store(arguments.root, write=True):
        raise InputError(
            f"there are no runs yet: no file {printable(store)}; run {typed('search', root=arguments.root)} first"
        )
    os.close(adopt(arguments.root))  # MLflow's UI reads at the places that the database names
    for name, address in view_addresses(arguments.root, arguments.port).items():
        print(f"Trials of experiment {printable(name)}, the best first: {address}")
    print("Ctrl-C ends it.", flush=True)
    options = {"--backend-store-uri": database_uri(store), "--host": "127.0.0.1"}
    options |= {"--port": str(arguments.port), "--workers": "1"}
    return [sys.executable, "-m", "mlflow", "ui", *(word for option in options.items() for word in option)]


def main(arguments: Sequence[str]) -> int:
    """Become MLflow's UI; returns 0 after help, 2 where the arguments are not accepted, else not at all."""
    return run_command("search.ui", arguments, lambda: _USAGE.format(it=typed("ui")), lambda: _become_the_ui(arguments))


def _become_the_ui(words: Sequence[str]) -> NoReturn:
    line = command(words)
    # Else eight processes wait for jobs of language models, and take a fifth of a core while they do.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Our own interpreter, arguments checked above.
    os.execv(line[0], line)  # noqa: S606 # nosec B606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
