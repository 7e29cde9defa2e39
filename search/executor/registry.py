"""The executor that `executor.name` asks for.

An executor is a file of this folder with a function `make(task, on_note)`, and a line in `EXECUTORS` of the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from search.executor.protocol import Executor
from search.trial.task import Task

__all__ = ["make_executor"]


def make_executor(task: Task, on_note: Callable[[str], None]) -> Executor:
    """Start the executor of `task.settings.executor.name`; `on_note` is called with a line for the user."""
    executor: Executor = import_module(f"search.executor.{task.settings.executor.name}").make(task, on_note)
    return executor
