"""Sets of images that never part, and seeded, stratified choices among them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_modules.images.index import ImageIndex

__all__ = ["Amounts", "Rows", "Units"]

Rows = NDArray[np.int64]
Amounts = NDArray[np.floating[Any]] | NDArray[np.int64]

# Mixed units (a coil with several classes) are tried in this many seeded orders. The first that is nearly as well
# balanced as the best is kept, not the best itself: of few groups that would be the same choice for every seed.
_TRIES: Final = 16
_NEARLY: Final = 0.05
# Where exceeding a target is free, a choice that takes fewer images is preferred by this weight of their share.
_WASTE: Final = 0.1

_Found = TypeVar("_Found")


class Units:
    """The units of an index: images linked by a common group or by the same picture (directly or in a chain).

    Choices depend on the seed and on the content of images, not on their order: units are taken in the order of the
    hash of (seed, purpose, smallest digest of the unit).

    Attributes:
        of: (N,) int64, the unit of each image.
    """

    def __init__(self, index: ImageIndex, seed: int) -> None:
        self._seed = seed
        self._digests = [record.digest for record in index.records]
        self._labels = index.labels
        self._classes = len(index.classes)
        groups: list[Hashable] = [
            ("row", row) if record.group is None else record.group for row, record in enumerate(index.records)
        ]
        self.of = _components(groups, self._digests)

    def counts(self, rows: Rows) -> Rows:
        """(K,) images of each class among the rows."""
        return np.bincount(self._labels[rows], minlength=self._classes)

    def cap(self, rows: Rows, most: int, purpose: str) -> Rows:
        """The rows left when each class keeps at most `most` of them."""
        hashes = self._hashed(purpose, (self._digests[row] for row in rows.tolist()))
        order = rows[np.lexsort((rows, hashes))]
        kept = [order[self._labels[order] == label][:most] for label in range(self._classes)]
        return np.sort(np.concatenate(kept))

    def take(self, pool: Rows, target: Amounts, purpose: str, *, keep: int = 1, reach: bool = False) -> Rows:
        """Whole units whose classes come as near to a target as they can.

        Args:
            target: (K,) wanted number of images of each class.
            purpose: Names the choice, so that choices with one seed are independent.
            keep: Units of every class that stay behind.
            reach: Exceeding the target costs nothing (the caller caps), and a class may fall below `keep` for its
                first unit.

        Returns:
            Ascending rows: all rows in `pool` of the units taken.
        """
        choice = _Choice(self._tables(pool), target, keep, reach)
        orders = [self._unit_hashes(pool, f"{purpose}/{attempt}") for attempt in range(_TRIES if choice.mixed else 1)]
        taken = _first_good([choice.greedy(order) for order in orders])
        return np.sort(pool[np.isin(self.of[pool], list(taken))])

    def deal(self, pool: Rows, folds: int, purpose: str) -> list[Rows]:
        """The pool in `folds` parts of whole units with about the same number of each class; rows ascend."""
        units, counts = self._tables(pool)
        total = np.maximum(counts.sum(0), 1)
        mixed = (counts > 0).sum(1) > 1
        found = []
        for attempt in range(_TRIES if mixed.any() else 1):
            hashes = self._unit_hashes(pool, f"{purpose}/{attempt}")
            order = np.lexsort((hashes, -counts.sum(1) * ~mixed, ~mixed))
            parts, held = np.empty(len(units), np.int64), np.zeros((folds, counts.shape[1]))
            sizes = np.zeros(folds, np.int64)
            for unit in order:
                share = counts[unit] / total
                # Where parts hold equal shares of the unit's classes, the smallest part is served.
                parts[unit] = np.lexsort((sizes, np.round((held * share).sum(1), 12)))[0]
                held[parts[unit]] += share
                sizes[parts[unit]] += counts[unit].sum()
            found.append((float(np.sqrt(((held - 1 / folds) ** 2).mean())), parts))
        chosen = _first_good(found)
        part = chosen[np.searchsorted(units, self.of[pool])]
        return [np.sort(pool[part == number]) for number in range(folds)]

    def _tables(self, pool: Rows) -> tuple[Rows, Rows]:
        """Units of the pool, ascending, and (M, K) their images by class."""
        units, position = np.unique(self.of[pool], return_inverse=True)
        counts = np.zeros((len(units), self._classes), np.int64)
        np.add.at(counts, (position, self._labels[pool]), 1)
        return units, counts

    def _unit_hashes(self, pool: Rows, purpose: str) -> NDArray[np.uint64]:
        """(M,) hashes of units by their smallest digest, so that large units come no earlier than small ones."""
        units, position = np.unique(self.of[pool], return_inverse=True)
        smallest = [""] * len(units)
        for unit, row in zip(position.tolist(), pool.tolist(), strict=True):
            digest = self._digests[row]
            if not smallest[unit] or digest < smallest[unit]:
                smallest[unit] = digest
        return self._hashed(purpose, smallest)

    def _hashed(self, purpose: str, digests: Iterable[str]) -> NDArray[np.uint64]:
        hashes = (hashlib.blake2b(f"{self._seed}:{purpose}:{d}".encode(), digest_size=8).digest() for d in digests)
        return np.frombuffer(b"".join(hashes), dtype="<u8")


class _Choice:
    def __init__(self, tables: tuple[Rows, Rows], target: Amounts, keep: int, reach: bool) -> None:
        self._units, self._counts = tables
        self._target, self._keep, self._reach = target, keep, reach
        self._scale = np.maximum(self._counts.sum(0), 1)
        classes = (self._counts > 0).sum(1)
        self.mixed = bool((classes > 1).any())
        self._is_mixed = classes > 1

    def greedy(self, hashes: NDArray[np.uint64]) -> tuple[float, set[int]]:
        """Mixed units first, then single-class units fill what each class lacks.

        Returns the cost (root mean square, over classes, of the share of images missed or in excess) and the units.
        """
        self._got: Amounts = np.zeros(len(self._target))
        self._left = (self._counts > 0).sum(0)
        order = np.argsort(hashes, kind="stable")
        taken: list[int] = []
        for unit in order[self._is_mixed[order]]:
            counts = self._counts[unit]
            if self._allowed(np.flatnonzero(counts)) and self._cost(self._got + counts) < self._cost(self._got) - 1e-12:
                self._accept(int(unit), taken)
        pure = order[~self._is_mixed[order]]
        label = self._counts[pure].argmax(1)
        for number in range(len(self._target)):
            self._fill(pure[label == number], number, taken)
        if not taken:
            allowed = [int(unit) for unit in order if self._allowed(np.flatnonzero(self._counts[unit]))]
            if allowed and self._target.any():
                self._accept(min(allowed, key=lambda unit: self._cost(self._counts[unit])), taken)
        waste = _WASTE * self._got.sum() / self._scale.sum() if self._reach else 0.0
        return self._cost(self._got) + float(waste), {int(self._units[unit]) for unit in taken}

    def _fill(self, units: Rows, number: int, taken: list[int]) -> None:
        classes, wanted = np.array([number]), self._target[number]
        sizes = self._counts[units, number]
        for unit, size in zip(units.tolist(), sizes.tolist(), strict=True):
            if self._got[number] >= wanted or not self._allowed(classes):
                break
            if self._reach or abs(self._got[number] + size - wanted) < abs(self._got[number] - wanted):
                self._accept(unit, taken)
        if wanted > 0 and self._got[number] == 0 and len(units) and self._allowed(classes):
            self._accept(int(units[np.argmin(sizes)]), taken)

    def _allowed(self, classes: Iterable[int]) -> bool:
        return all(self._left[c] > self._keep or (self._reach and self._got[c] == 0) for c in classes)

    def _accept(self, unit: int, taken: list[int]) -> None:
        taken.append(unit)
        self._got = self._got + self._counts[unit]
        self._left -= self._counts[unit] > 0

    def _cost(self, got: Amounts) -> float:
        missed = (np.minimum(got, self._target) if self._reach else got) - self._target
        return float(np.sqrt(((missed / self._scale) ** 2).mean()))


def _first_good(found: Sequence[tuple[float, _Found]]) -> _Found:
    best = min(cost for cost, _ in found)
    return next(choice for cost, choice in found if cost <= best + _NEARLY)


def _components(*links: Iterable[Hashable]) -> Rows:
    """Connected components of rows that share a value of any of the links, numbered by first row."""
    columns = [list(link) for link in links]
    parent = list(range(len(columns[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in columns:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(column):
            one, other = root(first.setdefault(value, row)), root(row)
            parent[max(one, other)] = min(one, other)
    return np.array([root(row) for row in range(len(parent))], dtype=np.int64)
