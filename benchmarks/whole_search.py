"""One search as a user types it: `python -m search` in a process of its own, and the winner that its study recorded."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.study.record import Winner

__all__ = ["whole_search"]


def whole_search(study: str, arguments: Sequence[str], root: Path) -> tuple[Winner, float]:
    """The winner of a study, which goes on where it stopped, and the wall seconds of this call."""
    command = [sys.executable, "-m", "search", *arguments, f"search.study={study}", f"tracking.root={root}"]
    started = time.perf_counter()
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter and arguments
    from search.study.opening import load_study

    winner = load_study(study, root).winner
    if winner is None:
        raise RuntimeError(f"{' '.join(command)} left no winner")
    return winner, round(time.perf_counter() - started, 1)
