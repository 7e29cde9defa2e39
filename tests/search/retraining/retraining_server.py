"""Runs `python -m search.retrain` as processes that can be killed, after importing it once: a fork a command.

Importing torch, Lightning and MLflow takes most of such a command's time (see ../command_server.py). For each JSON line
it answers the process id at once, and the exit code when the process has ended; before the first of them, a 0.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from importlib import import_module

import search.retraining.driver
from search.retrain import main

# Imported by the command when it first needs them.
_LATER = ("hydra", "rich.console", "sklearn.model_selection", "timm", "torchvision.models", "matplotlib.figure")


def _run(request: dict[str, object]) -> None:
    """Become the command: its streams, its arguments, its exit code."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(str(request[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 1
    try:
        code = main(request["arguments"])  # type: ignore[arg-type]
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking down every module that was imported would take seconds


def _serve() -> None:
    for name in _LATER:
        import_module(name)
    gc.freeze()  # or the first collection of every fork copies the pages of all that was imported
    answers = os.dup(1)
    os.write(answers, b"0\n")  # ready
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.close(answers)
            _run(request)
        os.write(answers, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    if threading.active_count() > 1:
        sys.exit(f"{search.retraining.driver.__name__} starts threads when imported: a fork of it would lose them")
    _serve()
