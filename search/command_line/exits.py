"""What the commands of this package have in common: how they end, and how their threads wait."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from lightning_modules.errors import BadImages

__all__ = ["let_threads_sleep", "refuse", "until_interrupted"]


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has set it; call before torch is loaded.

    Threads that spin made training seven times slower on a machine that something else was using too
    (docs/architecture.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def refuse(program: str, error: ValueError) -> int:
    """Say in one line what is wrong with the input, and below it every bad image where there are several.

    Returns:
        The exit code of bad input, 2.
    """
    print(f"{program}: {error}", file=sys.stderr)
    if isinstance(error, BadImages) and len(error.problems) > 1:
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
    return 2


def until_interrupted(program: str, work: Callable[[], int]) -> int:
    """Do work that searches.

    Returns:
        Its exit code, 130 (the user stopped it) or 1 (trials kept failing).

    Raises:
        StoreError: the disk is full, read-only or failing; the same command goes on later.
        SystemExit: with 143 on SIGTERM, so that whatever has open books closes them on the way out.
    """
    from search.errors import InterruptedSearchError, StoreError, StudyStalledError
    from search.tracking.store import disk_problem

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return work()
    except InterruptedSearchError as stop:
        print(stop, file=sys.stderr)
        return 130
    except StudyStalledError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
        raise StoreError(problem) from error
    finally:
        signal.signal(signal.SIGTERM, before)
