"""Which of thousands of images get a figure: a bounded choice, made while they stream past."""

from __future__ import annotations

import heapq

__all__ = ["Selection"]


class Selection:
    """Keeps, of each predicted class, the images with the smallest and the largest margin.

    Memory depends on the number of classes, not of images.

    Args:
        keep: images kept at either end.
    """

    def __init__(self, classes: int, keep: int) -> None:
        self._keep = keep
        self._certain: list[list[tuple[float, int]]] = [[] for _ in range(classes)]
        self._doubtful: list[list[tuple[float, int]]] = [[] for _ in range(classes)]
        self.counts = [0] * classes

    def add(self, place: int, predicted: int, margin: float) -> None:
        """Take one image: its place among all, its predicted class, first minus second probability."""
        self.counts[predicted] += 1
        for heap, key in ((self._certain, margin), (self._doubtful, -margin)):
            heapq.heappush(heap[predicted], (key, -place))
            if len(heap[predicted]) > self._keep:
                heapq.heappop(heap[predicted])

    def for_contact(self, predicted: int, most: int) -> list[int]:
        """Places of at most `most` images of a class, the most certain first: both ends where there are more.

        `most` is at most the number kept.
        """
        certain, doubtful = _ordered(self._certain[predicted]), _ordered(self._doubtful[predicted])
        if self.counts[predicted] <= most:
            return certain
        return certain[: most - most // 2] + doubtful[: most // 2][::-1]

    def for_figures(self, most: int) -> list[int]:
        """Places of at most `most` images, sorted: of each class in turn the most doubtful, then the most certain."""
        ends = [_ordered(heap) for pair in zip(self._doubtful, self._certain, strict=True) for heap in pair]
        # Doubtful images of all classes come before the certain ones of the same rank.
        ends = ends[::2] + ends[1::2]
        turns = (end[rank] for rank in range(self._keep) for end in ends if rank < len(end))
        return sorted(list(dict.fromkeys(turns))[:most])


def _ordered(heap: list[tuple[float, int]]) -> list[int]:
    return [-place for _, place in sorted(heap, reverse=True)]
