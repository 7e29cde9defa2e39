"""`python -m search.look IMAGES`: what a folder of images holds, and whether it is enough; nothing is trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.errors import InputError, printable
from search.command_line.arguments import argument_names, argument_table, read_arguments
from search.command_line.exits import run_command
from search.invocation import typed
from search.settings.field import setting

__all__ = ["Arguments", "main"]


@dataclass(frozen=True)
class Arguments:
    """The command's own arguments; the others are settings of a search."""

    to: Path | None = setting(None, "PNG file for the contact sheet (default ROOT/look/NAME.png)")


def help_text() -> str:
    """Text of `--help`."""
    return (
        f"usage: {typed('look')} IMAGES [name=value ...] [settings of a search ...]\n\n"
        "Looks at images before anything is trained: classes, sizes, copies, faulty files, months and groups, the\n"
        "split, whether there are enough to tell 90 % from 95 %, and what to do next. Takes ten seconds.\n"
        "IMAGES is a folder, IMAGES/<class>/*, or a table with the columns path and label.\n\n"
        f"{argument_table(Arguments)}\n\n"
        "exit codes: 0 done, also where single images are faulty; 2 images that cannot be read so, nothing written"
    )


def main(arguments: Sequence[str]) -> int:
    """Look at images; returns the exit code: 0, 2 (bad input) or 130 (stopped)."""
    return run_command("look", arguments, help_text, lambda: _look(list(arguments)))


def _look(words: list[str]) -> int:
    if words and "=" not in words[0] and not words[0].startswith("-"):
        words[0] = f"images={words[0]}"
    own = [word for word in words if word.partition("=")[0] in argument_names(Arguments)]
    given = [word for word in words if word not in own]
    arguments = read_arguments(Arguments, own)
    if arguments.to is not None and (arguments.to.suffix.lower() != ".png" or arguments.to.is_dir()):
        raise InputError(f"to must be a file that ends in .png, got {printable(arguments.to)}")
    from search.settings.compose import compose_settings

    settings = compose_settings(given)
    if settings.data.path is None:
        raise InputError(f"look needs images: {typed('look')} IMAGES; those that are simulated need no look")
    from search.look.lines import lines
    from search.look.sheet import contact_sheet
    from search.look.survey import survey

    found = survey(settings)
    path = settings.data.path.resolve()
    name = path.parent.name if path.is_file() else path.name
    sheet = arguments.to or settings.tracking.root / "look" / f"{name or 'images'}.png"
    for line in lines(found, settings):
        print(line)
    contact_sheet(found, sheet)
    print(f"Contact sheet, as a network sees the images: {printable(sheet)}")
    print("\nNext:")
    for command, meaning in _next_steps(given, set_aside=bool(found.index.set_aside)):
        print(f"  {command}\n      {meaning}")
    return 0


def _next_steps(given: Sequence[str], *, set_aside: bool) -> list[tuple[str, str]]:
    aside = ["data.on_bad=set_aside"] if set_aside and "data.on_bad=set_aside" not in given else []
    words = [*given, *aside]
    steps = [(typed("search", *words), "the whole search")]
    if not any(word.startswith("experiment=") for word in words):
        quick = typed("search", *words, "experiment=quick")
        steps.insert(0, (quick, "a first result: smaller images, fewer and shorter trials"))
    return steps


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
