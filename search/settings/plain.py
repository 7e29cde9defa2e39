"""Settings as plain values: the dotted keys of all of them, nested dicts and flat ones."""

from __future__ import annotations

from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from search.settings.schema import Settings

__all__ = ["flatten", "key_paths", "shown", "to_plain"]


def key_paths(cls: type = Settings, prefix: str = "") -> dict[str, tuple[Field[Any], Any]]:
    """Dotted key -> (field, type) of every setting, in the order of the classes."""
    hints = get_type_hints(cls)
    found: dict[str, tuple[Field[Any], Any]] = {}
    for item in fields(cls):
        kind = hints[item.name]
        if is_dataclass(kind):
            found |= key_paths(kind, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        else:
            found[prefix + item.name] = (item, kind)
    return found


def to_plain(settings: Any) -> Any:
    """Nested dicts, lists and scalars, as JSON and MLflow take them."""
    if is_dataclass(settings):
        return {f.name: to_plain(getattr(settings, f.name)) for f in fields(settings)}
    if isinstance(settings, tuple):
        return [to_plain(v) for v in settings]
    return str(settings) if isinstance(settings, Path) else settings


def flatten(settings: Settings) -> dict[str, Any]:
    """Dotted key -> plain value of every setting."""
    flat: dict[str, Any] = {}
    for key in key_paths():
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        flat[key] = to_plain(value)
    return flat


def shown(value: object) -> str:
    """A plain value as it is typed."""
    if isinstance(value, list):
        return "[" + ",".join(shown(v) for v in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
