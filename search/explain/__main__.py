"""`python -m explain`: what every block of a model looks at, as a table, figures and one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from search.command_line.exits import run_command
from search.explain.arguments import help_text, parse

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Explain images; returns the exit code: 0, 1 (some images were skipped), 2 (bad input), 130 (stopped)."""
    return run_command("explain", arguments, help_text, lambda: _explain(arguments))


def _explain(arguments: Sequence[str]) -> int:
    checked = parse(arguments)
    from search.explain.command import run

    return run(checked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
