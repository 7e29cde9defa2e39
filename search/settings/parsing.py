"""From a mapping of plain values to the frozen dataclasses of `search.settings.schema`, or to one clear line."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from lightning_modules.errors import InputError
from lightning_modules.home_folder import home_path
from search.settings.plain import key_paths
from search.settings.rules import check_rules
from search.settings.schema import Settings

__all__ = ["accepted", "checked", "one_or_several", "parse", "strip_optional", "unknown_key"]


def parse(values: Mapping[str, Any]) -> Settings:
    """Validate every key, type and range, then the rules between settings.

    Raises:
        InputError: one line naming the key, the value received and what is accepted.
    """
    settings: Settings = _parse_class(Settings, values, "")
    check_rules(settings)
    return settings


def unknown_key(key: str, known: Sequence[str]) -> InputError:
    """The line for a key that does not exist, with the nearest one that does."""
    if "." in key:
        near = get_close_matches(key, known, n=1, cutoff=0.5)
    else:
        last = get_close_matches(key, {k.rpartition(".")[2] for k in known}, n=1, cutoff=0.6)
        near = [k for k in known if k.rpartition(".")[2] in last] or get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return InputError(f"unknown setting {key!r}; {hint}")


def accepted(item: Field[Any], kind: Any) -> str:
    """What a setting accepts, in words: used by errors, help and docs alike."""
    meta = item.metadata
    if meta["choices"]:
        words = ", ".join(meta["choices"])
        or_null = " or null" if strip_optional(kind)[1] else ""
        return f"a list of {words}" if get_origin(kind) is tuple else f"one of {words}{or_null}"
    base, optional = strip_optional(kind)
    pair = get_origin(base) is tuple
    number = get_args(base)[0] if pair else base
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    size = "" if Ellipsis in get_args(base) else f" of {len(get_args(base))}"
    words = f"a list{size} of {names[number]}" if pair else names[number]
    words = f"{names[number]} or {words}" if meta["square"] else words
    if one_or_several(kind):
        words = "text or a list of text"
    bounds = []
    if meta["above"] is not None:
        bounds.append(f"> {meta['above']:g}")
    if meta["low"] is not None:
        bounds.append(f">= {meta['low']:g}")
    if meta["high"] is not None:
        bounds.append(f"<= {_number(meta['high'])}")
    others = [f"or {word}" for word in (*meta["words"], *(["null"] if optional else []))]
    return " ".join([words, *([" and ".join(bounds)] if bounds else []), *others])


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def strip_optional(kind: Any) -> tuple[Any, bool]:
    """The type without None, and the text of single words, beside it; and whether None was part of it."""
    if get_origin(kind) in (Union, types.UnionType):
        members = [m for m in get_args(kind) if m is not type(None)]
        return members[0], type(None) in get_args(kind)
    return kind, False


def one_or_several(kind: Any) -> bool:
    """Whether a setting takes a text or a list of texts; a list of one is that text."""
    return str in get_args(kind) and any(Ellipsis in get_args(member) for member in get_args(kind))


def _parse_class(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    for key in values:
        if key not in known:
            raise unknown_key(f"{prefix}{key}", list(key_paths()))
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        kind = hints[name]
        if is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise InputError(f"{prefix}{name} is a group of settings, got {value!r}")
            arguments[name] = _parse_class(kind, value, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            base, optional = strip_optional(kind)
            if one_or_several(kind) and isinstance(value, (list, tuple)):
                base = next(member for member in get_args(kind) if get_origin(member) is tuple)
            refusal = InputError(f"{prefix}{name} must be {accepted(known[name], kind)}, got {value!r}")
            empty = value is None and optional
            found = None if empty else checked(known[name], base, value, prefix + name, refusal)
            arguments[name] = (
                found[0] if one_or_several(kind) and isinstance(found, tuple) and len(found) == 1 else found
            )
    return cls(**arguments)


def checked(item: Field[Any], kind: Any, value: Any, key: str, refusal: InputError) -> Any:
    """The value as the field's type (without None) has it.

    Raises:
        InputError: `refusal`; a list that names one member twice; a home folder that is not there.
    """
    if isinstance(value, str) and value in item.metadata["words"]:
        return value
    if get_origin(kind) is tuple:
        if item.metadata["square"] and not isinstance(value, (list, tuple)):
            value = [value, value]
        if not isinstance(value, (list, tuple)):
            raise refusal
        members = get_args(kind)
        open_ended = members[-1] is Ellipsis
        if not value or (not open_ended and len(value) != len(members)):
            raise refusal
        parsed = tuple(_scalar(members[0], v, item, key, refusal) for v in value)
        if open_ended and len(set(parsed)) != len(parsed):
            raise InputError(f"{key} must not name one twice, got {list(value)}")
        return parsed
    return _scalar(kind, value, item, key, refusal)


def _scalar(kind: type, value: Any, item: Field[Any], key: str, refusal: InputError) -> Any:
    if isinstance(value, str) and (kind is Path or item.metadata["path"]):
        value = home_path(value, key)
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool) and not item.metadata["choices"]:
        value = str(value)  # a name made of digits, as in search.study=7
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (kind is str and not value):
        raise refusal
    meta = item.metadata
    if meta["choices"] and value not in meta["choices"]:
        raise refusal
    if kind in (int, float):
        number = float(str(value))
        below = meta["low"] is not None and number < meta["low"]
        not_above = meta["above"] is not None and number <= meta["above"]
        if not math.isfinite(number) or below or not_above or (meta["high"] is not None and number > meta["high"]):
            raise refusal
    return value
