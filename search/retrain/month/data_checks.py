"""What is wrong or unusual with a month's images, before any network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from lightning_modules.images.index import ImageIndex
from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet

__all__ = ["DataCheck", "check_month"]

_FLAT = 1.0  # standard deviation in grey values of 255: less is no picture of anything
_UNLIKELY = 0.001  # of a class mix; monthly, it is named about once in eighty years where nothing changes
_CHUNK = 256


@dataclass(frozen=True)
class DataCheck:
    """What was found.

    Attributes:
        refusal: why the month is left out, or None.
        notes: what the user should know, a sentence each.
        new_classes: of the month, which the champion does not know.
        flat: images without contrast.
        counts: images of the month by class.
    """

    refusal: str | None
    notes: tuple[str, ...]
    new_classes: tuple[str, ...]
    flat: int
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "notes": list(self.notes), "new_classes": list(self.new_classes)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> DataCheck:
        """What `to_json` gave."""
        lists = {name: tuple(values[name]) for name in ("notes", "new_classes")}
        return DataCheck(**{**values, **lists})


def check_month(
    images: ImageSet,
    rows: Rows,
    older: Rows,
    *,
    known: Sequence[str],
    white_level: int,
    new_class: str,
    constant_share: float,
) -> DataCheck:
    """Look at a month's images.

    Args:
        images: all that there are.
        rows: the month's, at least one.
        older: those of usable older months.
        known: classes of the champion.
        white_level: of the champion's images of more than 8 bits.
        new_class: refuse or extend (`retrain.new_class`).
        constant_share: share of images without contrast from which the month is refused.
    """
    index = images.index
    counts = _counts(index, rows)
    new = tuple(name for name in counts if name not in known)
    flat = _flat(images, rows)
    refusals, notes = [], []
    if len(flat) >= constant_share * len(rows):
        example = index.records[int(flat[0])].path.name
        refusals.append(
            f"{len(flat)} of {len(rows)} images show nothing (one grey value, as {example}): a broken camera or empty "
            f"files; less than retrain.constant_share={constant_share:g} of them is accepted"
        )
    elif len(flat):
        notes.append(f"{len(flat)} of {len(rows)} images show nothing (one grey value).")
    if index.white_level != white_level:
        refusals.append(
            f"white of the images of more than 8 bits is {index.white_level}, and {white_level} for the champion: it "
            "would see them brighter or darker than it was trained on; scale them alike, or start another "
            "tracking.model_name"
        )
    if new:
        named = ", ".join(f"{name} ({counts[name]} images)" for name in new)
        if new_class == "refuse":
            refusals.append(f"classes that the champion does not know: {named}; retrain.new_class=extend accepts them")
        else:
            notes.append(f"New classes, for which the head gets outputs: {named}.")
    before = _counts(index, older)
    if gone := [name for name in before if name not in counts]:
        notes.append(f"Classes without an image this month: {', '.join(gone)}.")
    if mix := _mix(before, counts):
        notes.append(mix)
    return DataCheck("; ".join(refusals) or None, tuple(notes), new, len(flat), counts)


def _counts(index: ImageIndex, rows: Rows) -> dict[str, int]:
    counts = np.bincount(index.labels[rows], minlength=len(index.classes))
    return {name: int(count) for name, count in zip(index.classes, counts, strict=True) if count}


def _flat(images: ImageSet, rows: Rows) -> NDArray[np.int64]:
    """Rows of images whose grey values do not vary."""
    found = []
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        spread = images.pixels[part].reshape(len(part), -1).astype(np.float32).std(axis=1)
        found.append(part[spread < _FLAT])
    return np.concatenate(found)


def _mix(before: dict[str, int], now: dict[str, int]) -> str:
    """One sentence where the mix of classes is far off that of older months (chi-square), else nothing."""
    names = sorted({*before, *now})
    table = np.array([[one.get(name, 0) for name in names] for one in (before, now)])
    if len(names) < 2 or not table.sum(axis=1).all():
        return ""
    result = chi2_contingency(table, correction=False)
    if result.pvalue >= _UNLIKELY:
        return ""
    residuals = (table[1] - result.expected_freq[1]) / np.sqrt(result.expected_freq[1])
    odd = sorted(range(len(names)), key=lambda i: -abs(residuals[i]))[:3]
    shares = table / table.sum(axis=1, keepdims=True)
    named = ", ".join(f"{names[i]} {shares[0, i]:.0%} -> {shares[1, i]:.0%}" for i in odd)
    return f"The mix of classes is far from that of older months (chi-square, p = {result.pvalue:.1g}): {named}."
