"""Values that go through JSON: what the steps of a month find is kept in the ledger as such. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter

__all__ = ["Known", "Stored"]

# JSON has no NaN: what is not known is null there.
Known = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None),
]


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    """Made once a class, since pydantic compiles it."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


class Stored:
    """A value that goes through JSON."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        plain: dict[str, Any] = _adapter(type(self)).dump_python(self)
        return plain

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave, also after a way through JSON."""
        found: Self = _adapter(cls).validate_python(values)
        return found
