"""`python -m search.retrain`: wires arguments, settings and monthly retraining together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from lightning_modules.errors import InputError
from search.command_line.arguments import argument_names, read_arguments
from search.command_line.exits import run_command, shown_at_once
from search.invocation import typed
from search.settings.field import setting

__all__ = ["main"]

_USAGE = """Usage: {it} [month=YYYY-MM] images=IMAGES [GROUP=OPTION ...] [key=value ...]
       {it} rollback reason=TEXT [to=VERSION] [key=value ...]
       {it} history [key=value ...]

Keeps the chosen model current as each month's data arrives: looks at the champion with the new month, decides from its
maps how deep to retrain, searches briefly from its weights, and promotes the challenger where it is shown to be no
worse and no class collapses. Does every month that it has not done yet, oldest first; the first call searches the
first champion. The same command again does nothing, and continues what was interrupted. See docs/retraining.md.

  {it} images=IMAGES                           IMAGES/<YYYY-MM>/<class>/*
  {it} images=IMAGES month=2020-02
  {it} rollback reason='scratches are missed'  the champion before is put back
  {it} history                                 every change of champion

Exit codes: 0 done, 1 a month was refused or trials kept failing, 2 bad input, 130 stopped by the user.
Every setting of {search} (see its --help), and:
"""


@dataclass(frozen=True)
class Arguments:
    """The command's own arguments; the others are settings."""

    month: str | None = setting(None, "the one month to do, YYYY-MM (default every month that is not done)")
    reason: str | None = setting(None, "why the champion is rolled back, 1 to 1000 printable characters")
    to: str | None = setting(None, "the version to roll back to (default the champion before)")


def help_text() -> str:
    """The page that `--help` prints."""
    from search.settings.reference import setting_lines

    return _USAGE.format(it=typed("retrain"), search=typed("search")) + "\n".join(setting_lines("retrain."))


def main(arguments: Sequence[str]) -> int:
    """Do the months that are due, roll back, or print the history; returns the exit code."""
    return run_command("retrain", arguments, help_text, lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    given = list(arguments)
    verb = given.pop(0) if given and given[0] in ("rollback", "history") else ""
    own = [word for word in given if word.partition("=")[0] in argument_names(Arguments)]
    words = [word for word in given if word not in own]
    month, reason, to = astuple(read_arguments(Arguments, own))
    if month is not None and verb:
        raise InputError(f"month= is for {typed('retrain')} alone, got {verb} with month={month}")
    if (reason is not None) != (verb == "rollback"):
        raise InputError("rollback needs reason=TEXT" if verb else f"reason= is for {typed('retrain', 'rollback')}")
    if to is not None and reason is None:
        raise InputError(f"to= is for {typed('retrain', 'rollback')}, got to={to}")
    if reason is not None and not (reason.strip() and reason.isprintable() and len(reason) <= 1000):
        raise InputError(f"reason must be 1 to 1000 printable characters, got {reason[:100]!r}")
    from search.settings.compose import compose_settings

    with shown_at_once("Reading settings"):
        settings = compose_settings(words)
    if settings.protocol != "search":
        raise InputError(f"protocol must be search for retraining, got {settings.protocol}")
    from search.command_line.steady_console import SteadyConsole, loading

    if not verb and settings.data.path is not None:
        from search.trial.splitting import listed

        listed(settings.data)  # a wrong path is refused before PyTorch is loaded
    console = SteadyConsole()
    with console.steady():
        with loading(console):
            from search.retrain import commands

        if verb == "history":
            return commands.history(settings, console)
        if reason is not None:
            return commands.rollback(settings, console, reason=reason, to=to)
        command = typed("retrain", *arguments)
        return commands.retrain(settings, console, month=month, command=command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
