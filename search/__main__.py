"""`python -m search`: wires arguments, settings and the pipeline together."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_modules.errors import InputError
from search.command_line.exits import run_command, shown_at_once, until_interrupted
from search.invocation import typed
from search.words import class_counts

if TYPE_CHECKING:
    from search.command_line.steady_console import SteadyConsole
    from search.settings.schema import Settings


def main(arguments: Sequence[str]) -> int:
    """Run a search; returns the exit code: 0, 1 (trials kept failing), 2 (bad input), 130 (stopped by the user)."""
    return run_command("search", arguments, _help_text, lambda: _run(list(arguments)))


def _help_text() -> str:
    from search.settings.reference import help_text

    return help_text()


def _run(overrides: list[str]) -> int:
    if "--version" in overrides:
        from importlib.metadata import version

        print(version("thawline"))
        return 0
    position = overrides.index("--cfg") if "--cfg" in overrides else len(overrides)
    show_only = overrides[position : position + 2] == ["--cfg", "job"]
    if show_only:
        del overrides[position : position + 2]
    from search.settings.compose import as_yaml, compose_settings

    for override in overrides:
        if override.startswith("retrain") and not show_only:
            raise InputError(f"{override.split('=')[0]} is a setting of {typed('retrain')}, got {override!r}")
    with shown_at_once("Reading settings"):
        settings = compose_settings(overrides)
    if show_only:
        print(as_yaml(settings), end="")
        return 0
    from search.command_line.steady_console import SteadyConsole

    return until_interrupted("search", lambda: _search(settings, SteadyConsole()))


def _search(settings: Settings, console: SteadyConsole) -> int:
    if settings.data.path is not None:
        _say_what_is_there(settings, console)
    from search.command_line.steady_console import loading

    with console.steady():
        if settings.protocol == "thesis":
            with loading(console):
                from search.thesis.experiment import run_thesis

            run_thesis(settings, console)
        else:
            with loading(console):
                from search.pipeline import run_search

            run_search(settings, console)
    return 0


def _say_what_is_there(settings: Settings, console: SteadyConsole) -> None:
    """The classes, from the names of folders and files alone: a wrong path is refused before PyTorch is loaded."""
    from search.command_line.plain_line import print_line
    from search.trial.splitting import listed

    found = listed(settings.data).images
    counts = dict(sorted(Counter(image.label for image in found).items()))
    if not found:
        return
    line = f"Found {len(found)} files in {len(counts)} classes: {class_counts(counts)}."
    print_line(console, line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
