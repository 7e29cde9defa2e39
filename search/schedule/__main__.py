"""`python -m search.schedule cron="0 3 2 * *"`: starts `python -m search.retrain` at those times, and nothing else.

It remembers nothing: the ledger of retraining knows which months are done, so the run at the start catches up with all
that was missed, and a run too many changes nothing.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING

from lightning_modules.errors import InputError, printable
from search.command_line.arguments import argument_names, argument_table, read_arguments
from search.command_line.exits import run_command
from search.invocation import typed
from search.settings.field import required, setting

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

__all__ = ["Arguments", "main", "parse", "run_schedule"]

_SHOWN = 3


@dataclass(frozen=True)
class Arguments:
    """The schedule's own arguments; the others are settings of `python -m search.retrain`."""

    cron: str = required(
        "when to run: five fields, minute hour day month weekday, as in crontab, or @monthly, @weekly, @daily"
    )
    timezone: str | None = setting(None, "of these times, such as Europe/Berlin or UTC (default that of this machine)")
    catch_up: bool = setting(True, "whether to run once at the start, for months that were missed")
    times: int | None = setting(None, "print the next so many times and exit; nothing is run", low=1)


def help_text() -> str:
    """Text of `--help`."""
    return (
        f'usage: {typed("schedule")} cron="0 3 2 * *" images=IMAGES [name=value ...] [settings of retraining ...]\n\n'
        f"Starts {typed('retrain')} with the settings given, at the start and at the times of cron. Two runs\n"
        "never overlap; a run that fails does not end the schedule. See docs/scheduling.md.\n\n"
        f"{argument_table(Arguments)}\n\n"
        "exit codes: 0 times printed; 2 bad input; 130 stopped by Ctrl-C, 143 by SIGTERM: a run under way gets the\n"
        "            signal too and is waited for"
    )


def parse(words: Sequence[str]) -> tuple[Arguments, list[str]]:
    """The schedule's own arguments, and the settings of retraining, both checked.

    Raises:
        InputError: anything that is not accepted.
    """
    names = argument_names(Arguments)
    own = [word for word in words if word.partition("=")[0] in names]
    settings = [word for word in words if word not in own]
    given = read_arguments(Arguments, own)
    month = next((s for s in settings if s.partition("=")[0] == "month"), None)
    if month is not None:
        raise InputError(f"a schedule runs every month that is not done; {month} is for {typed('retrain')}")
    # Before the first run, which may be a month away.
    from search.settings.compose import compose_settings

    compose_settings(settings)
    return given, settings


def _zone(name: str | None) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from tzlocal import get_localzone

    said = os.environ.get("TZ")
    try:
        if name is not None:
            return ZoneInfo(name)
        if said in ("", ":"):
            return UTC  # as the C library has it; tzlocal passes over it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a machine that has set no time zone is in UTC; which it is, is printed
            return get_localzone()
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        if name is not None:
            raise InputError(f"timezone must be a name such as Europe/Berlin or UTC, got {name!r}") from error
        what = f"this machine's time zone cannot be told ({printable(' '.join(str(error).split()))})"
        if said:
            what = f"TZ={printable(repr(said))} is no zone's name (rules such as UTC0 are not read)"
        raise InputError(f"{what}; name one with timezone=, such as Europe/Berlin or UTC") from error


class _StopError(Exception):
    """Raised by a signal in the main thread."""


class _Runner:
    """Runs the command, one process at a time, and says how each run ended."""

    def __init__(self, command: Sequence[str], say: Callable[[str], None], say_next: Callable[[], None]) -> None:
        self._command, self._say, self._say_next = list(command), say, say_next
        self._starting = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._runs = 0
        self.again = False  # a time came while a run was going on

    def __call__(self) -> None:
        """Run, and once more if a time came meanwhile; called in the scheduler's thread."""
        self._run()
        while self.again and not self._stopped:
            self._say("A time came while this run was going on: running once more.")
            self.again = False
            self._run()
        if not self._stopped:
            self._say_next()

    def _run(self) -> None:
        with self._starting:
            if self._stopped:
                return
            self._runs += 1
            number, started = self._runs, time.monotonic()
            self._say(f"Run {number} starts: {shlex.join(self._command)}")
            try:
                # In a session of its own: a Ctrl-C in the terminal reaches it once, by way of `stop`.
                # No shell reads the command: it is the user's own arguments, each as it stands.
                self._child = subprocess.Popen(  # noqa: S603 # nosec B603
                    self._command, stdin=subprocess.DEVNULL, start_new_session=True
                )
            except OSError as error:
                self._say(f"Run {number} could not be started ({error.strerror}); the schedule goes on.")
                return
        code = self._child.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.Signals(-code).name})"
        after = "" if code == 0 or self._stopped else "; the schedule goes on"
        self._say(f"Run {number} ended after {time.monotonic() - started:.0f} s with {how}{after}.")

    def tell(self, number: int) -> None:
        """Pass a signal on to the process, if one is running."""
        if self._child is not None:
            self._child.send_signal(number)

    def stop(self, number: int) -> bool:
        """Start no more runs, and pass the signal on; returns whether a process was running."""
        with self._starting:
            self._stopped = True
        running = self._child is not None and self._child.poll() is None
        self.tell(number)
        return running


@contextmanager
def _signals(handler: Callable[[int], None]) -> Iterator[None]:
    def called(number: int, _: FrameType | None) -> None:
        handler(number)

    before = {number: signal.signal(number, called) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def run_schedule(
    trigger: BaseTrigger,
    zone: tzinfo,
    command: Sequence[str],
    *,
    catch_up: bool,
    say: Callable[[str], None],
    say_next: Callable[[], None],
) -> int:
    """Run the command by the schedule until SIGINT or SIGTERM; returns 128 plus the signal.

    Args:
        command: the process to start each time.
        catch_up: whether to run at once.
    """
    from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.blocking import BlockingScheduler

    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # what it warns of, we say
    runner = _Runner(command, say, say_next)
    executors = {"default": ThreadPoolExecutor(1), "clock": ThreadPoolExecutor(1)}
    always = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    scheduler = BlockingScheduler(executors=executors, job_defaults=always, timezone=zone)
    first = {"next_run_time": datetime.now(UTC)} if catch_up else {}
    scheduler.add_job(runner, trigger, id="retrain", **first)
    # The scheduler sleeps by a clock that stands still while the machine is suspended, and does not see the time being
    # set: waking up each minute, it is late by a minute at most.
    scheduler.add_job(lambda: None, "interval", minutes=1, id="clock", executor="clock")

    def missed(event: JobSubmissionEvent) -> None:
        if event.job_id == "retrain":
            runner.again = True

    scheduler.add_listener(missed, EVENT_JOB_MAX_INSTANCES)
    stopped: list[int] = []

    def on_signal(number: int) -> None:
        if stopped:
            runner.tell(number)  # a second one, for the run that is waited for
            return
        stopped.append(number)
        raise _StopError

    with _signals(on_signal):
        try:
            scheduler.start()
        except _StopError:
            name = signal.Signals(stopped[0]).name
            if runner.stop(stopped[0]):
                say(f"{name}: passed on to the run; waiting for it to end.")
            if scheduler.running:
                scheduler.shutdown(wait=True)
            say(f"{name}: the schedule has ended.")
    return 128 + stopped[0]


def main(arguments: Sequence[str]) -> int:
    """Run the schedule; returns the exit code: 0, 2 (bad input), 130 (Ctrl-C), 143 (SIGTERM)."""
    return run_command("schedule", arguments, help_text, lambda: _schedule(arguments))


def _schedule(words: Sequence[str]) -> int:
    arguments, settings = parse(words)
    from search.schedule.cron_trigger import cron_trigger, fire_times

    zone = _zone(arguments.timezone)
    trigger = cron_trigger(arguments.cron, zone)

    def next_times(count: int) -> list[str]:
        times = islice(fire_times(trigger, zone, datetime.now(UTC)), count)
        return [f"{at:%a %Y-%m-%d %H:%M %z}" for at in times]

    def say(line: str) -> None:
        print(f"{datetime.now(zone):%Y-%m-%d %H:%M:%S} {line}", flush=True)

    print(f"Next times ({zone}):", *next_times(arguments.times or _SHOWN), sep="\n  ", flush=True)
    if arguments.times is not None:
        return 0
    return run_schedule(
        trigger,
        zone,
        [sys.executable, "-m", "search.retrain", *settings],
        catch_up=arguments.catch_up,
        say=say,
        say_next=lambda: say(f"Next time: {', '.join(next_times(1)) or 'none'}."),
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")  # the runs' lines in the journal when they are written
    sys.exit(main(sys.argv[1:]))
