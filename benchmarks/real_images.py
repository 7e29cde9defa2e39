"""Where the real images are, and whether a benchmark on them can run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

__all__ = ["DATA", "refusal"]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def refusal(names: Iterable[str], known: Collection[str]) -> str | None:
    """Why tasks of these names cannot run, in one line; None where they can."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        return f"unknown task {unknown[0]!r}; accepted: {', '.join(known)}"
    return None if DATA.is_dir() else "the real images are not here: expected ../shared/data beside the project"
