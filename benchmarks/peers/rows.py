"""Rows of results, one a peer, task and seed: what is done, what they say together, and who is on the frontier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

__all__ = ["Standing", "frontier", "is_done", "replaced", "standings"]

Row = dict[str, Any]

_KEY = ("peer", "task", "seed")


def is_done(rows: Iterable[Row], peer: str, task: str, seed: int) -> bool:
    """Whether there is a result; one that failed is tried again."""
    return any(_key(row) == (peer, task, seed) and "failed" not in row for row in rows)


def replaced(rows: Iterable[Row], row: Row) -> list[Row]:
    """The rows with this one in place of that of the same peer, task and seed."""
    return [other for other in rows if _key(other) != _key(row)] + [row]


def _key(row: Row) -> tuple[str, str, int]:
    peer, task, seed = (row[name] for name in _KEY)
    return peer, task, seed


@dataclass(frozen=True)
class Standing:
    """What a peer reached on a task.

    Attributes:
        seeds: how many runs.
        score: their mean, in [0, 1].
        interval: 95 % t-interval of the mean over the seeds; None with one seed.
        seconds: mean wall seconds to the trained model.
        ratio: to those of plain fine-tuning on the same seeds; None where it has not run on one of them.
        failed: why it did not run, where no seed did.
    """

    peer: str
    seeds: int
    score: float
    interval: tuple[float, float] | None
    seconds: float
    ratio: float | None
    failed: str = ""


def standings(rows: Sequence[Row], task: str, score: str, peers: Iterable[str], unit: str) -> list[Standing]:
    """A standing a peer, in this order; peers without a row are left out.

    Args:
        rows: of all tasks.
        task: its rows are taken.
        score: accuracy or macro_f1.
        peers: names, in the order wanted.
        unit: the peer whose seconds are the unit of time.
    """
    mine = [row for row in rows if row["task"] == task]
    units = {row["seed"]: row["seconds"] for row in mine if row["peer"] == unit and "failed" not in row}
    found = []
    for peer in peers:
        runs = [row for row in mine if row["peer"] == peer]
        ran = [row for row in runs if "failed" not in row]
        if not ran:
            found += [Standing(peer, 0, 0.0, None, 0.0, None, row["failed"]) for row in runs[:1]]
            continue
        values, seconds = [row[score] for row in ran], mean(row["seconds"] for row in ran)
        ratio = None
        if all(row["seed"] in units for row in ran):
            ratio = seconds / mean(units[row["seed"]] for row in ran)
        found.append(Standing(peer, len(ran), mean(values), _interval(values), seconds, ratio))
    return found


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return mean(values) - half, mean(values) + half


def frontier(found: Iterable[Standing]) -> list[Standing]:
    """Those that no other beats, by less time with at least the score; fastest first, of equals the first given."""
    front: list[Standing] = []
    for one in sorted((one for one in found if one.seeds), key=lambda one: (one.seconds, -one.score)):
        if not front or one.score > front[-1].score:
            front.append(one)
    return front
