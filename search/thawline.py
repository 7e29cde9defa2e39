"""The console script `thawline`: hands over to one of the commands, each of which `python -m` runs as well."""

from __future__ import annotations

import os
import runpy
import sys
from difflib import get_close_matches

from search.command_line.exits import explain_missing_package
from search.invocation import COMMANDS, STARTED_BY, console_script

__all__ = ["help_text", "main"]


def help_text() -> str:
    """Text of `--help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {meaning}" for name, (_, meaning) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: thawline COMMAND [name=value ...]",
            "",
            "Decides where to thaw a pre-trained network: an image classifier from a folder of images.",
            "",
            *lines,
            "",
            "first:   thawline look IMAGES              IMAGES/<class>/*",
            "then:    thawline search images=IMAGES     thawline search alone takes simulated images",
            "more:    thawline COMMAND --help",
            "         thawline --version",
        ]
    )


def main() -> int:
    """Run the command that the first argument names; returns or exits with its exit code."""
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h", "help"):
        print(help_text())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("thawline"))
        return 0
    if words[0] not in COMMANDS:
        near = get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}"
        print(f"thawline: unknown command {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    os.environ[STARTED_BY] = console_script()
    module = COMMANDS[words[0]][0]
    sys.argv = [f"thawline {words[0]}", *words[1:]]
    with explain_missing_package("thawline"):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
