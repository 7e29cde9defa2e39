"""What a study may cost, `search.budget`: seconds, epochs or trials after which no more trials are asked for.

What counts, over all calls together:

- seconds: wall time in which trials ran, whether they came to anything or not; noted every ten seconds, so that a
  killed driver loses at most as many;
- epochs, in epochs of training everything (`lightning_modules.networks.freezing`), and trials: attempts, those that
  died of an error too. An attempt lost to an interruption is asked again and counts once, so that an interrupted study
  ends with the same trials as an undisturbed one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightning_modules.errors import InputError

__all__ = ["Budget", "parse_budget"]

_UNITS = {"s": ("s", 1), "min": ("s", 60), "h": ("s", 3600), "epochs": ("epochs", 1), "trials": ("trials", 1)}
_MOST = 1e9


@dataclass(frozen=True)
class Budget:
    """An amount of one unit.

    Attributes:
        amount: > 0.
        unit: s, epochs or trials.
        text: as the user wrote it.
    """

    amount: float
    unit: str
    text: str


def parse_budget(text: str) -> Budget:
    """A number with its unit, as in 600s, 90min, 8h, 40epochs, 100trials.

    Raises:
        InputError: it is none, or not in (0, 1e9].
    """
    found = re.fullmatch(r"([0-9]{1,10}(?:\.[0-9]{1,6})?)(s|min|h|epochs|trials)", text)
    if found is None or not 0 < float(found[1]) <= _MOST:
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        raise InputError(
            f"search.budget must be a number above 0 with its unit, as in 600s, 90min, 8h, 40epochs or 100trials, "
            f"got {shown!r}"
        )
    unit, times = _UNITS[found[2]]
    return Budget(float(found[1]) * times, unit, text)
