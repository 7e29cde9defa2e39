"""The executor that `executor.name` asks for.

An executor is a file of this folder with a function `make(task, on_note)`, and a line in `EXECUTORS` of the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from search.executor.protocol import Executor
from search.settings.schema import ExecutorSettings, Settings
from search.trial.task import Task

if TYPE_CHECKING:
    from search.executor.local import StartedProcess

__all__ = ["Workers", "check_executor", "early_processes", "make_executor"]


def check_executor(settings: ExecutorSettings) -> None:
    """Look whether that executor can be had, before anything is written.

    Raises:
        InputError: it cannot.
    """
    if settings.name == "ray":
        import_module("search.executor.ray").check(settings)


def make_executor(task: Task, on_note: Callable[[str], None], started: tuple[StartedProcess, ...] = ()) -> Executor:
    """Start the executor of `task.settings.executor.name`.

    Args:
        on_note: called with a line for the user.
        started: processes that wait for their plan, see `early_processes`.
    """
    make = import_module(f"search.executor.{task.settings.executor.name}").make
    executor: Executor = make(task, on_note, started) if started else make(task, on_note)
    return executor


@contextmanager
def early_processes(settings: Settings) -> Iterator[tuple[StartedProcess, ...]]:
    """Worker processes that import what they need while the driver reads images; ended with the block if not used.

    Only `executor=local` has such; of others there are none.
    """
    if settings.executor.name != "local":
        yield ()
        return
    from search.executor.local import end, start_processes

    started = tuple(start_processes(settings))
    try:
        yield started
    finally:
        end(started)


class Workers:
    """The executor of a study, started when it is asked for, and again when it is asked for after a close.

    Args:
        started: processes for the first start, see `early_processes`.
    """

    def __init__(self, task: Task, on_note: Callable[[str], None], started: tuple[StartedProcess, ...] = ()) -> None:
        self._start = partial(make_executor, task, on_note)
        self._started = started
        self._executor: Executor | None = None

    def __call__(self) -> Executor:
        if self._executor is None:
            self._executor, self._started = self._start(started=self._started), ()
        return self._executor

    def close(self) -> None:
        """Cancel what still runs and give everything back."""
        if self._executor is not None:
            self._executor.close()
        self._executor = None
