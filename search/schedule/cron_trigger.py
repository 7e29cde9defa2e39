"""Crontab lines with the meaning they have for cron.

APScheduler's own reader counts weekdays from Monday (0 is Sunday for cron), asks for day and weekday *both* (cron: one
of them, where both are restricted), and passes over what follows the name of a month or a day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from lightning_modules.errors import InputError

__all__ = ["cron_trigger", "fire_times"]

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "minute": (0, 59, ()),
    "hour": (0, 23, ()),
    "day": (1, 31, ()),
    "month": (1, 12, _MONTHS),
    "weekday": (0, 7, _DAYS),
}
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PART = re.compile(r"(?:\*|(?P<first>[a-z]+|[0-9]+)(?:-(?P<last>[a-z]+|[0-9]+))?)(?:/(?P<step>[0-9]+))?")


def cron_trigger(line: str, zone: tzinfo) -> BaseTrigger:
    """The trigger of a crontab line: minute, hour, day, month, weekday, or a nickname such as @monthly.

    Weekdays are 0..7 (0 and 7 are Sunday) or sun..sat. Where neither day nor weekday begins with `*`, either is enough.

    Raises:
        InputError: not such a line, or one that never fires.
    """
    words = _NICKNAMES.get(line.strip().lower(), line).lower().split()
    if len(words) != len(_FIELDS):
        raise InputError(
            f"cron must be five fields, minute hour day month weekday, as in cron='0 3 2 * *', or one of "
            f"{', '.join(_NICKNAMES)}; got {line!r}"
        )
    values = {name: _values(line, word, *field) for word, (name, field) in zip(words, _FIELDS.items(), strict=True)}
    fields: dict[str, Any] = {name: ",".join(map(str, values[name])) for name in ("minute", "hour", "month")}
    day = {"day": ",".join(map(str, values["day"]))}
    weekday = {"day_of_week": ",".join(sorted({_DAYS[value % 7] for value in values["weekday"]}))}
    if words[2].startswith("*") or words[4].startswith("*"):
        trigger: BaseTrigger = CronTrigger(**fields, **day, **weekday, timezone=zone)
    else:
        trigger = OrTrigger([CronTrigger(**fields, **one, timezone=zone) for one in (day, weekday)])
    if next(fire_times(trigger, zone, datetime.now(UTC)), None) is None:
        raise InputError(f"cron={line!r} never fires: no month of those has such a day")
    return trigger


def fire_times(trigger: BaseTrigger, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """When a trigger fires, from `after` on.

    Args:
        after: with a time zone.
    """
    found = trigger.get_next_fire_time(None, after.astimezone(zone))
    while found is not None:
        # By way of UTC: a time that the start of summer time leaves out is shown as the one at which it is.
        yield found.astimezone(UTC).astimezone(zone)
        found = trigger.get_next_fire_time(found, found)


def _values(line: str, word: str, low: int, high: int, names: tuple[str, ...]) -> list[int]:
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        wrong = InputError(
            f"cron={line!r}: {part!r} must be *, a value, a range a-b, or one with a step as in */2; values are "
            f"{low}..{high}" + (f" or {', '.join(names)}" if names else "")
        )
        if match is None:
            raise wrong
        first, last, step = match["first"], match["last"], int(match["step"] or 1)
        start = low if first is None else _value(first, low, names)
        if first is None or (last is None and match["step"]):
            stop = 6 if names == _DAYS else high
        else:
            stop = start if last is None else _value(last, low, names)
        if names == _DAYS and start > stop == 0:
            stop = 7  # fri-sun
        if not low <= start <= stop <= high or not step:
            raise wrong
        found.update(range(start, stop + 1, step))
    return sorted(found)


def _value(text: str, low: int, names: tuple[str, ...]) -> int:
    if text.isdigit():
        return int(text)
    return names.index(text) + low if text in names else -1
