"""What a decision costs, and the cheapest one: C classes, M images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightning_modules.decisions.conformal import BY_HAND
from lightning_modules.errors import InputError, printable
from lightning_modules.images.tables import read_table

__all__ = ["Costs", "costs_json", "parse_costs", "read_costs"]

_FORMAT: Final = 1
_COLUMNS: Final = ("true", "decided", "cost")
_LARGEST: Final = 1e12


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs in any unit, the same for all.

    Attributes:
        table: float64 (C, C + 1), >= 0: row = true class, column = decided class, the last one looking by hand.
    """

    table: NDArray[np.float64]

    def expected(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, C + 1) expected cost of each decision at calibrated probabilities (M, C): sum_c p_c cost(c, decision)."""
        expected: NDArray[np.float64] = probabilities @ self.table
        return expected

    def cheapest(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """(M,) the decision of the lowest expected cost, -1 by hand; of equals the most probable class, by hand last.

        Bayes' rule: Elkan 2001, The foundations of cost-sensitive learning.
        """
        expected = self.expected(probabilities)
        least = expected <= expected.min(1, keepdims=True) + 1e-12
        likely = np.where(least[:, :-1], probabilities, -1.0)
        return np.where(least[:, :-1].any(1), likely.argmax(1), -1)

    def of(self, decisions: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """(M,) what the decisions (-1: by hand) cost at the true classes."""
        return self.table[labels, decisions]


def read_costs(path: Path, classes: tuple[str, ...], *, on_note: Callable[[str], None]) -> Costs:
    """A table with a row a pair: columns `true`, `decided` (a class, or "by hand") and `cost`, a number >= 0.

    A right decision costs nothing unless the table says otherwise. Every other pair of the classes must be there, once;
    what is said of further classes is not used.

    Args:
        on_note: see `read_table`.

    Raises:
        InputError: no such table, a pair missing or there twice, no number; or a class is called "by hand".
    """
    name = f"costs {printable(path)}"
    if BY_HAND in classes:
        raise InputError(f"{name}: a class is called {BY_HAND!r}, which is a decision; rename it")
    known = {label: place for place, label in enumerate((*classes, BY_HAND))}
    table = np.full((len(classes), len(classes) + 1), np.nan)
    for number, row in read_table(path, "costs ", _COLUMNS, on_note=on_note)[1]:
        true, decided, text = (row[column] for column in _COLUMNS)
        try:
            cost = float(text)
        except ValueError:
            cost = math.nan
        if not 0 <= cost <= _LARGEST:
            raise InputError(f"{name} row {number}: cost must be a number in 0..{_LARGEST:g}, got {printable(text)!r}")
        if true == BY_HAND:
            raise InputError(f"{name} row {number}: {BY_HAND!r} is a decision, no true class")
        if true not in known or decided not in known:
            continue
        if not math.isnan(table[known[true], known[decided]]):
            raise InputError(
                f"{name} row {number}: {printable(true)!r} decided as {printable(decided)!r} is there twice"
            )
        table[known[true], known[decided]] = cost
    diagonal = table[:, :-1].diagonal()
    np.fill_diagonal(table, np.where(np.isnan(diagonal), 0.0, diagonal))
    if missing := np.argwhere(np.isnan(table)).tolist():
        true, decided = ((*classes, BY_HAND)[place] for place in missing[0])
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{name} has no cost of {printable(true)!r} decided as {printable(decided)!r}{more}; a row for each pair "
            f"of {len(classes)} classes and for each decided as {BY_HAND!r} is needed"
        )
    return Costs(table)


def costs_json(costs: Costs) -> str:
    """As text: the numbers read back as they were."""
    return json.dumps({"format": _FORMAT, "costs": costs.table.tolist()}, allow_nan=False)


def parse_costs(text: str, classes: int) -> Costs:
    """What `costs_json` wrote, of a model of so many classes.

    Raises:
        InputError: with the reason alone.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("no JSON") from None
    if not isinstance(raw, dict) or set(raw) != {"format", "costs"}:
        raise InputError("no costs of a model")
    if raw["format"] != _FORMAT:
        raise InputError(f"format {str(raw['format'])[:40]}, accepted is {_FORMAT}: made by a later version")
    rows = raw["costs"]
    if not isinstance(rows, list) or len(rows) != classes or not all(_is_row(row, classes + 1) for row in rows):
        raise InputError(f"{classes} rows of {classes + 1} numbers in 0..{_LARGEST:g} expected")
    return Costs(np.array(rows, np.float64))


def _is_row(row: Any, length: int) -> bool:
    numbers = isinstance(row, list) and len(row) == length and all(type(cost) in (int, float) for cost in row)
    return numbers and all(0 <= cost <= _LARGEST for cost in row)
