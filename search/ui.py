"""`python -m search.ui`: MLflow's own UI on the store of the searches, on 127.0.0.1 only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_modules.errors import InputError, printable
from search.command_line.exits import refuse
from search.tracking.store import check_store

__all__ = ["command", "main"]

_USAGE = """\
usage: python -m search.ui [tracking.root=FOLDER] [port=NUMBER]

Opens MLflow's own UI on http://127.0.0.1:PORT, for this machine only. FOLDER is that of the searches (default mlruns),
PORT a number in 1..65535 (default 5000). Ctrl-C ends it. Exit code 2: bad input.
"""


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that starts the UI.

    Args:
        arguments: `tracking.root=FOLDER` and `port=NUMBER`, both optional.

    Raises:
        InputError: another argument, a port that is none, or no store in the folder.
    """
    given = dict(a.partition("=")[::2] for a in arguments)
    unknown = sorted(set(given) - {"tracking.root", "port"})
    if unknown:
        raise InputError(f"unknown argument {unknown[0]!r}; accepted: tracking.root=FOLDER port=NUMBER")
    port = given.get("port", "5000")
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"port must be a number in 1..65535, got {port!r}")
    store = Path(given.get("tracking.root", "mlruns")) / "mlflow.db"
    if not check_store(store.parent, write=False):
        raise InputError(f"there are no runs yet: no file {printable(store)}; run python -m search first")
    uri = f"sqlite:///{store.resolve()}"
    return [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--workers",
        "1",
    ]


def main(arguments: Sequence[str]) -> int:  # noqa: RET503 - execv does not return
    """Become MLflow's UI; returns 0 after help, 2 where the arguments are not accepted, else not at all."""
    if "--help" in arguments or "-h" in arguments:
        print(_USAGE, end="")
        return 0
    try:
        line = command(arguments)
    except InputError as error:
        return refuse("search.ui", error)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Else eight processes wait for jobs of language models, and take a fifth of a core while they do.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Our own interpreter, arguments checked above.
    os.execv(line[0], line)  # noqa: S606 # nosec B606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
