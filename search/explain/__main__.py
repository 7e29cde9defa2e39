"""`python -m explain`: what every block of a model looks at, as a table, figures and one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from search.explain.arguments import ArgumentError, help_text, parse

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Explain images; returns the exit code: 0, 1 (some images were skipped), 2 (bad input), 130 (stopped)."""
    if "--help" in arguments or "-h" in arguments:
        print(help_text())
        return 0
    try:
        checked = parse(arguments)
        from search.explain.command import run

        return run(checked)
    except ArgumentError as error:
        print(f"explain: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
