"""Arguments `name=value` of a command, from the fields of a frozen dataclass made with `search.settings.field.setting`.

They are read, checked as settings are, refused in one clear line, and listed for `--help`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from textwrap import wrap
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from lightning_modules.errors import InputError
from search.settings.parsing import accepted, checked, strip_optional
from search.settings.plain import shown, to_plain

__all__ = ["argument_names", "argument_table", "read_arguments", "with_whole_names"]

Arguments = TypeVar("Arguments")

_ROOT = {"root": "tracking.root"}
_LARGEST = 2**31 - 1  # seeds, and more than any count


def read_arguments(cls: type[Arguments], words: Sequence[str], usage: str = "") -> Arguments:
    """The checked arguments of a command.

    Args:
        cls: frozen dataclass; None in an optional field means that the argument is not given.
        usage: all arguments in one line, for a command whose help has no table of them.

    Raises:
        InputError: no `name=value`, an unknown name, one given twice, an empty value, a required one missing, or a
            value that is not accepted.
    """
    known, kinds = _by_name(cls), get_type_hints(cls)
    given: dict[str, str] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if usage and name not in known:
            raise InputError(f"unknown argument {word!r}; accepted: {usage}")
        if not separator or not name:
            raise InputError(f"arguments must be name=value, got {word!r}")
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"unknown argument {name!r}; {hint}")
        if name in given:
            twice = f"is given twice; accepted: {usage}" if usage else f"must be given once, got it again as {word!r}"
            raise InputError(f"{name} {twice}")
        if not text:
            meaning = f"accepted: {usage}" if usage else f"it is {_meaning(known[name])}"
            raise InputError(f"{name} must not be empty; {meaning}")
        given[name] = text
    for name, item in known.items():
        if item.default is MISSING and name not in given:
            missing = f" must be named, got nothing; accepted: {usage}" if usage else "= is missing: " + _meaning(item)
            raise InputError(f"{name}{missing}")
    values = {known[name].name: _value(known[name], kinds[known[name].name], text) for name, text in given.items()}
    return cls(**values)


def with_whole_names(words: Sequence[str], names: Mapping[str, str] = _ROOT) -> list[str]:
    """The words with the second of two names that mean the same, for commands that take both.

    Args:
        names: name -> the one that it stands for.

    Raises:
        InputError: both are given.
    """
    found = []
    for word in words:
        name, separator, value = word.partition("=")
        if (whole := names.get(name)) is not None and any(other.startswith(f"{whole}=") for other in words):
            raise InputError(f"{name}= and {whole}= are the same: give one of them")
        found.append(f"{names.get(name, name)}{separator}{value}")
    return found


def argument_names(cls: type) -> tuple[str, ...]:
    """Names of the arguments as they are typed."""
    return tuple(_by_name(cls))


def argument_table(cls: type) -> str:
    """Names, meanings and defaults, wrapped at 110 columns."""
    known = _by_name(cls)
    width = max(map(len, known))
    return "\n".join(
        f"  {name:<{width}}  " + f"\n{'':{width + 4}}".join(wrap(_meaning(item), 108 - width, break_on_hyphens=False))
        for name, item in known.items()
    )


def _by_name(cls: type) -> dict[str, Field[Any]]:
    return {item.metadata["name"] or item.name: item for item in fields(cls)}


def _meaning(item: Field[Any]) -> str:
    if item.default is MISSING:
        return f"{item.metadata['meaning']}; required"
    default = "" if item.default is None else f" (default {shown(to_plain(item.default))})"
    return f"{item.metadata['meaning']}{default}"


def _value(item: Field[Any], kind: Any, text: str) -> Any:
    base, _ = strip_optional(kind)
    name, low, high = item.metadata["name"] or item.name, item.metadata["low"], item.metadata["high"]
    if base is bool:
        words = "one of true, false"
    elif base is int:
        words = f"a whole number of at least {low}" if high is None else f"a number in {low}..{high}"
    else:
        words = accepted(item, base)
    return checked(item, base, _typed(base, text), name, InputError(f"{name} must be {words}, got {text!r}"))


def _typed(kind: Any, text: str) -> Any:
    """The text as a value of the kind, or as it is where it is none: it is refused then."""
    if get_origin(kind) is tuple:
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return [_typed(get_args(kind)[0], part.strip()) for part in bare.split(",")]
    if kind is bool:
        return {"true": True, "false": False}.get(text, text)
    if kind is int and re.fullmatch("0*[0-9]{1,10}", text) and int(text) <= _LARGEST:
        return int(text)
    if kind is float and re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]{1,3})?", text):
        return float(text)
    return text
