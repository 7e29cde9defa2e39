"""What a search says on its way to a refusal: what lies there, and that it is still at work."""

from __future__ import annotations

__all__ = ["only_progress"]

_PROGRESS = ("Found ", "  after ", "Loading ")


def only_progress(out: str) -> bool:
    """Whether all lines are such, and none would steer a terminal."""
    return all(line.startswith(_PROGRESS) and line.isprintable() for line in out.splitlines())
