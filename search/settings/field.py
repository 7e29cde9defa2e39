"""How a setting or a command's argument says what it means and accepts: the metadata of a dataclass field."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any

__all__ = ["required", "setting"]


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    identity: bool = True,
    name: str = "",
    path: bool = False,
    square: bool = False,
) -> Any:
    """A field with its meaning and accepted values.

    Args:
        default: value where no configuration file and no override sets one.
        meaning: one sentence for help and docs.
        unit: of a number.
        low: smallest accepted number.
        high: largest accepted number.
        above: accepted numbers are greater than this one.
        choices: accepted strings.
        words: strings that are accepted beside what the type says, as `auto` beside a list of numbers.
        identity: whether another value makes it another study (and not the same one, continued).
        name: of a command's argument that is typed otherwise than the field is called.
        path: whether a text may be a path, so that ~ at its beginning is the home folder.
        square: whether one number may stand for a list of two that are the same.
    """
    metadata = {
        "meaning": meaning,
        "unit": unit,
        "low": low,
        "high": high,
        "above": above,
        "choices": choices,
        "words": words,
        "identity": identity,
        "name": name,
        "path": path,
        "square": square,
    }
    return field(default=default, metadata=metadata)


def required(meaning: str, *, path: bool = False) -> Any:
    """A command's argument without a default."""
    return setting(MISSING, meaning, path=path)
