"""What a report keeps in MLflow as JSON, so that a later one need not compute it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Self, cast

from pydantic import TypeAdapter

__all__ = ["KeptJson"]


class KeptJson:
    """Base of dataclasses with pictures.

    Attributes:
        pictures: key -> JPEG in base64.
    """

    pictures: Mapping[str, str]

    def to_json(self) -> str:
        """As it is kept in MLflow."""
        plain = replace(cast(Any, self), pictures=dict(self.pictures))
        return json.dumps(asdict(plain), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises:
            ValueError: `text` is something else.
        """
        return TypeAdapter(cls).validate_json(text)
