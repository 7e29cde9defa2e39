"""A line on the terminal as it stands: no colours, no markup, and no width that would cut a path in two."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_line"]


def print_line(console: Console, line: str) -> None:
    """Print it."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
