"""Arguments of the form `name=value`: read, refused in one clear line, and listed for `--help`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from textwrap import wrap

__all__ = ["ArgumentError", "choice", "meanings_table", "named_values", "whole_number"]


class ArgumentError(ValueError):
    """Arguments, or files they name, that cannot be used: one line with the value received and what is accepted."""


def named_values(arguments: Sequence[str], meanings: Mapping[str, str], required: Sequence[str] = ()) -> dict[str, str]:
    """Name -> value of the arguments given.

    Args:
        arguments: `name=value` each.
        meanings: name -> what it is and accepts, of all that may be given.
        required: names that must be given.

    Raises:
        ArgumentError: no `name=value`, an unknown name, one given twice, an empty value, or a required one missing.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator or not name:
            raise ArgumentError(f"arguments must be name=value, got {argument!r}")
        if name not in meanings:
            near = get_close_matches(name, meanings, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(meanings)}"
            raise ArgumentError(f"unknown argument {name!r}; {hint}")
        if name in given:
            raise ArgumentError(f"{name} must be given once, got it again as {argument!r}")
        if not value:
            raise ArgumentError(f"{name} must not be empty; it is {meanings[name]}")
        given[name] = value
    for name in required:
        if name not in given:
            raise ArgumentError(f"{name}= is missing: {meanings[name]}")
    return given


def whole_number(name: str, value: str, low: int) -> int:
    """The value as a whole number in low..2^31 - 1.

    Raises:
        ArgumentError: it is none.
    """
    if not (value.isascii() and value.isdecimal()) or not low <= int(value) < 2**31:
        raise ArgumentError(f"{name} must be a whole number of at least {low}, got {value!r}")
    return int(value)


def choice(name: str, value: str, accepted: Sequence[str]) -> str:
    """The value, one of those accepted.

    Raises:
        ArgumentError: it is another.
    """
    if value not in accepted:
        raise ArgumentError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")
    return value


def meanings_table(meanings: Mapping[str, str]) -> str:
    """Names and their meanings, wrapped at 110 columns."""
    width = max(map(len, meanings))
    return "\n".join(
        f"  {name:<{width}}  " + f"\n{'':{width + 4}}".join(wrap(meaning, 108 - width, break_on_hyphens=False))
        for name, meaning in meanings.items()
    )
