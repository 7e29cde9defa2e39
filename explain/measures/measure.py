"""What every measure declares, and the checks they share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

__all__ = [
    "DECLARED",
    "Direction",
    "Measure",
    "check_integer",
    "checked_maps",
    "dead",
    "measure",
    "nan_where",
    "share_of_max",
    "share_of_sum",
]

Direction = Literal["higher", "lower", "none"]

_Function = TypeVar("_Function", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Measure:
    """A measure of explanations: one value per image, NaN where it is not defined.

    Attributes:
        name: Key in the registry and column name in tables.
        low: Smallest possible value.
        high: Largest possible value, infinite where it grows with the size of the map.
        direction: Whether "higher" or "lower" is better, or "none" is better by itself.
        formula: The definition, in the symbols of the module that holds it.
        nan: When the value is NaN.
        function: Computes the values, float64, (N,).
    """

    name: str
    low: float
    high: float
    direction: Direction
    formula: str
    paper: str
    nan: str
    takes: tuple[str, ...]
    function: Callable[..., Tensor]

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:
        """Values of the N images, float64, (N,)."""
        return self.function(*arguments, **options)


DECLARED: dict[str, Measure] = {}
"""What `measure` declared so far, by name; `explain.measures.MEASURES` once all files are imported."""


def measure(
    name: str, span: tuple[float, float], direction: Direction, *, formula: str, paper: str, nan: str = "dead map"
) -> Callable[[_Function], _Function]:
    """Declare the function below a measure with values in `span`; it takes what has no default. See `Measure`."""

    def declare(function: _Function) -> _Function:
        parameters = inspect.signature(function).parameters.values()
        takes = tuple(p.name for p in parameters if p.default is inspect.Parameter.empty)
        DECLARED[name] = Measure(name, *span, direction, formula, paper, nan, takes, function)
        return function

    return declare


def check_integer(name: str, value: object, least: int) -> None:
    """Refuse an argument that is no integer (TypeError) or below `least` (ValueError)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def checked_maps(maps: Tensor) -> Tensor:
    """The maps in float64, after checking that they are (N, h, w), non-negative and finite.

    Raises:
        TypeError: Not a floating-point tensor.
        ValueError: Another shape, no position, a negative, NaN or infinite value.
    """
    if not isinstance(maps, Tensor):
        raise TypeError(f"maps must be a tensor, got {type(maps).__name__}")
    if not maps.is_floating_point():
        raise TypeError(f"maps must be floating point, got {maps.dtype}")
    if maps.ndim != 3 or maps.shape[1] * maps.shape[2] == 0:
        raise ValueError(f"maps must be of shape (N, h, w) with h, w >= 1, got {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        raise ValueError("maps must be finite, got NaN or infinity")
    if (maps < 0).any():
        raise ValueError(f"maps must be non-negative, got {maps.min().item()}")
    return maps.detach().double()


def dead(maps: Tensor) -> Tensor:
    """Which of the maps (N, h, w) are zero everywhere, bool, (N,)."""
    return maps.amax(dim=(1, 2)) == 0


def nan_where(condition: Tensor, values: Tensor) -> Tensor:
    """`values` with NaN where `condition` holds, both (N,)."""
    return values.masked_fill(condition, math.nan)


def share_of_max(maps: Tensor) -> Tensor:
    """M / max M, in [0, 1], (N, h, w); a dead map stays zero.

    The minimum is not subtracted: zero is the natural zero of a rectified map, and a uniform map stays defined.
    """
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / largest.masked_fill(largest == 0, 1)


def share_of_sum(maps: Tensor) -> Tensor:
    """M_bar = M / sum M, sums to one, (N, h, w); a dead map stays zero."""
    # Dividing by the maximum first keeps sums of tiny or huge values finite.
    scaled = share_of_max(maps)
    total = scaled.sum(dim=(1, 2), keepdim=True)
    return scaled / total.masked_fill(total == 0, 1)
