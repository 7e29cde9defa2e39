"""How the user started this command, so that a command that is printed works where it is pasted."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from shlex import join

__all__ = ["COMMANDS", "DEFAULT_ROOT", "STARTED_BY", "console_script", "typed", "typed_program"]

COMMANDS = {
    "look": ("search.look", "what a folder of images holds, and whether it is enough; no training, ten seconds"),
    "search": ("search", "search optimizer, learning rate and freeze depth, and test the winner once"),
    "explain": ("explain", "what each block of a model looks at, as maps over images"),
    "predict": ("search.predict", "classes and probabilities of images, as a table"),
    "report": ("search.report", "the page of a study, made anew"),
    "retrain": ("search.retrain", "keep the model current as each month's images arrive"),
    "schedule": ("search.schedule", "the same at fixed times"),
    "ui": ("search.ui", "open MLflow on this machine, at the trials"),
    "export": ("search.export", "a model as a file that runs without PyTorch"),
    "clean": ("search.clean", "free the disk of what can be computed again"),
}
"""Command of `thawline` -> the module that `python -m` runs, and what it does."""

DEFAULT_ROOT = Path("mlruns")
"""Folder of the store where none is named."""

# `just clean` has always removed what the recipes made.
_RECIPES = {"clean": "clean-cache"}

STARTED_BY = "THAWLINE_STARTED_BY"
"""Environment variable: `just`, or the console script as it can be typed; unset for `python -m`.

The processes that a command starts inherit it, so a month of `thawline schedule` says `thawline` too.
"""


def typed(command: str, *words: str, root: Path = DEFAULT_ROOT) -> str:
    """The line that starts a command with these words, in the way the running command was started.

    Args:
        command: one of `COMMANDS`.
        words: as the program receives them; quoted where a shell needs it.
        root: folder of the store; named where it is not the default.
    """
    words = (*words, *([] if root == DEFAULT_ROOT else [f"root={root}"]))
    if (started := os.environ.get(STARTED_BY)) is None:
        return join([_python(), "-m", COMMANDS[command][0], *words])
    return join([started, _RECIPES.get(command, command) if started == "just" else command, *words])


def typed_program(program: str, *words: str) -> str:
    """The line that starts another program of this environment, as it can be typed here."""
    return join([_by_name(Path(sys.executable).with_name(program), [program]), *words])


def console_script() -> str:
    """The running console script as it can be typed here: its name where the shell finds it by that, else its path."""
    return _by_name(Path(sys.argv[0]), [Path(sys.argv[0]).name])


def _python() -> str:
    return _by_name(Path(sys.executable), ["python", Path(sys.executable).name])


def _by_name(program: Path, names: list[str]) -> str:
    """The first of the names by which the shell finds something in the program's folder, else the program's path."""
    program = program.absolute()
    for name in names:
        # Not resolved: the python of a virtual environment is a link to one without its packages.
        if (found := shutil.which(name)) and Path(found).absolute().parent == program.parent:
            return name
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)
