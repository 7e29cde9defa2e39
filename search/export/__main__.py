"""`python -m search.export`: a model as a file that runs without PyTorch, refused where its answers are others."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from search.command_line.exits import run_command
from search.export.arguments import Arguments, help_text, parse

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Export a model; returns the exit code: 0, 2 (bad input or another answer, nothing written), 130 (stopped)."""
    return run_command("export", arguments, help_text, lambda: _export(parse(arguments)))


def _export(arguments: Arguments) -> int:
    from rich.console import Console

    from search.export.command import export

    found = export(arguments, Console())
    parity = found.parity
    changed = f"{len(parity.changed)} decisions changed{''.join(parity.lines())}"
    print(
        f"Exported {found.model} to {found.file}: on {parity.images} images its probabilities differ from the "
        f"model's by at most {parity.difference:.2g}, {changed}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
