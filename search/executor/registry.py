"""The executor that `executor.name` asks for.

An executor is a file of this folder with a function `make(task, on_note)`, and a line in `EXECUTORS` of the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

from search.executor.protocol import Executor
from search.settings.schema import ExecutorSettings
from search.trial.task import Task

__all__ = ["Workers", "check_executor", "make_executor"]


def check_executor(settings: ExecutorSettings) -> None:
    """Look whether that executor can be had, before anything is written.

    Raises:
        InputError: it cannot.
    """
    if settings.name == "ray":
        import_module("search.executor.ray").check(settings)


def make_executor(task: Task, on_note: Callable[[str], None]) -> Executor:
    """Start the executor of `task.settings.executor.name`; `on_note` is called with a line for the user."""
    executor: Executor = import_module(f"search.executor.{task.settings.executor.name}").make(task, on_note)
    return executor


class Workers:
    """The executor of a study, started when it is asked for, and again when it is asked for after a close."""

    def __init__(self, task: Task, on_note: Callable[[str], None]) -> None:
        self._start = partial(make_executor, task, on_note)
        self._executor: Executor | None = None

    def __call__(self) -> Executor:
        self._executor = self._executor or self._start()
        return self._executor

    def close(self) -> None:
        """Cancel what still runs and give everything back."""
        if self._executor is not None:
            self._executor.close()
        self._executor = None
