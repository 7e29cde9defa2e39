"""A study while a command works on it, as one value, and how long each phase of the work takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from search.command_line.plain_line import print_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from search.command_line.interrupts import InterruptFlag
    from search.settings.schema import Settings
    from search.study.record import StudyRecord
    from search.tracking.tracker import Tracker
    from search.trial.files import TrialFiles
    from search.trial.task import Task

__all__ = ["Clock", "StudyRun"]


@dataclass(frozen=True)
class Clock:
    """Wall time by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class StudyRun:
    """What every step of a study works with.

    Attributes:
        stopping: whether to stop; asking it is where a stop at once is raised.
        files: where trials that go on later and the best networks lie.
    """

    task: Task
    record: StudyRecord
    tracker: Tracker
    parent: str
    console: Console
    stopping: InterruptFlag
    clock: Clock
    files: TrialFiles
    _shown: list[Status] = field(default_factory=list)  # statuses of the phases that last

    @property
    def settings(self) -> Settings:
        """All settings."""
        return self.task.settings

    @property
    def metric(self) -> str:
        """Name of the validation score."""
        return self.task.settings.search.metric

    def say(self, line: str) -> None:
        """Say a line to the user (`print_line`)."""
        print_line(self.console, line)

    @contextmanager
    def phase(self, name: str, status: str = "") -> Iterator[None]:
        """A phase that no stop interrupts but where `stopping` is asked; `status` is shown while it lasts."""
        with ExitStack() as stack:
            stack.enter_context(self.clock(name))
            if status:
                self._shown.append(stack.enter_context(self.console.status(status)))
                stack.callback(self._shown.pop)
            stack.enter_context(self.stopping.held())
            yield

    def now(self, status: str) -> None:
        """Show another status of the phase that lasts, if it has one."""
        if self._shown:
            self._shown[-1].update(status)
