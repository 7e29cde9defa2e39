"""How the commands of this package begin and end: help, exit codes, and how their threads wait."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lightning_modules.errors import BadImages, InputError
from search.errors import InterruptedSearchError, StoreError, StudyStalledError, disk_problem

__all__ = ["explain_missing_package", "name_home_and_user", "run_command", "shown_at_once", "until_interrupted"]

# Variables that lead MLflow past the store that a command names.
_OTHER_STORES = (
    "MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE_STORE_URI", "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT",
)  # fmt: skip

_OUR_PACKAGES = ("explain", "lightning_modules", "search")


def _let_threads_sleep() -> None:
    """Let no thread spin while it waits, unless the user has set it; call before numpy and torch are loaded.

    Threads that spin made training seven times slower, and small products of matrices twelve times, on a machine that
    something else was using too (docs/architecture.md). OpenBLAS cannot be told to let its threads sleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def name_home_and_user() -> None:
    """Give libraries that ask for a home folder and a user name an answer where the system has none, as in containers.

    The folder does not exist, so that they keep what they would write there in temporary folders or nowhere.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of such a folder it says so, in two lines
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter as of Python 3.13
        os.environ["USER"] = str(os.getuid())


@contextmanager
def explain_missing_package(program: str) -> Iterator[None]:
    """Exit with 2 and one line where a package that the block imports is not installed.

    Raises:
        ModuleNotFoundError: a module of our own is missing, which is our fault.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OUR_PACKAGES:
            raise
        print(
            f"{program}: the package {package!r} is not installed for {sys.executable}; `just setup` installs what "
            "Thawline needs, or take the python of that environment (.venv/bin/python)",
            file=sys.stderr,
        )
        sys.exit(2)


@contextmanager
def shown_at_once(text: str) -> Iterator[None]:
    """Show a line on a terminal while the block lasts, before anything that takes time is imported to show it."""
    shown = sys.stderr.isatty()
    if shown:
        print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run_command(program: str, arguments: Sequence[str], help_text: Callable[[], str], work: Callable[[], int]) -> int:
    """Print the help where it is asked for, else do the work.

    Bad input is said in one line, and below it every bad image where there are several.

    Returns:
        The exit code: that of the work, 0 after help, 2 for bad input, 130 after Ctrl-C.
    """
    if "--help" in arguments or "-h" in arguments:
        print(help_text())
        return 0
    for name in _OTHER_STORES:
        os.environ.pop(name, None)
    name_home_and_user()
    _let_threads_sleep()
    try:
        with explain_missing_package(program):
            return work()
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        if isinstance(error, BadImages) and len(error.problems) > 1:
            for one in error.problems:
                print(f"  {one}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
        print(f"{program}: {problem}", file=sys.stderr)
        return 2


def until_interrupted(program: str, work: Callable[[], int]) -> int:
    """Do work that searches.

    Returns:
        Its exit code, 130 (the user stopped it) or 1 (trials kept failing).

    Raises:
        StoreError: the disk is full, read-only or failing; the same command goes on later.
        SystemExit: with 143 on SIGTERM, so that whatever has open books closes them on the way out.
    """
    terminated: list[int] = []

    def on_terminate(number: int, _: FrameType | None) -> None:
        terminated.append(number)
        sys.exit(143)

    before = signal.signal(signal.SIGTERM, on_terminate)
    try:
        return work()
    except InterruptedSearchError as stop:
        print(stop, file=sys.stderr)
        return 130
    except StudyStalledError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if terminated:  # code in C, such as Matplotlib's, may turn what the handler raised into an error of its own
            raise SystemExit(143) from None
        if not isinstance(error, OSError) or (problem := disk_problem(error)) is None:
            raise
        raise StoreError(problem) from error
    finally:
        signal.signal(signal.SIGTERM, before)
