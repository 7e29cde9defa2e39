"""The index of a set of images: what each is, checked as a whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import BadImages, Problem, printable
from lightning_modules.images.listing import ListedImage, Listing
from lightning_modules.images.value_range import FULL_RANGE, ValueRange, WideValues, described_values, value_problem

__all__ = ["ImageIndex", "ImageRecord", "OnBad", "Tiles", "build_index", "value_notes"]

OnBad = Literal["refuse", "set_aside"]
_FEWEST_CLASSES = 2
_FEW_LEVELS, _SHARE = 16, 0.1  # grey levels of an image that are few, and share of the images that a note is made of


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One good image.

    Attributes:
        label: Class name, NFC-normalised.
        month: YYYY-MM, or None where no image has one.
        group: Coil, plate or lot whose images never straddle splits, or None.
        split: "train", "val" or "test" where the manifest or the folders say so, or None.
        mask: File of the defect's pixels, or None.
        digest: Of the decoded pixels before resizing: the same picture saved as PNG and as BMP has one digest.
        values: What it holds, of more than 8 bits; None for 8 bits.
        grey_levels: Different values of 0..255 that a network is shown.
        size: Height and width of the picture in pixels, before resizing; None where neither file nor cache was asked.
        defect: Pixels of the mask in each of its tiles; None without tiles, or where no mask is read.
    """

    path: Path
    label: str
    month: str | None
    group: str | None
    split: str | None
    mask: Path | None
    digest: str
    values: WideValues | None = None
    grey_levels: int = 256
    size: tuple[int, int] | None = None
    defect: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ImageIndex:
    """All good images of a set, in an order that follows from their content alone.

    Attributes:
        records: Sorted by digest, then label, month, group, split and path.
        set_aside: What was left out, with reasons (`data.on_bad=set_aside`).
        notes: What the user should know.
        digest: Of content, label, month, group and split of all records; the same wherever the files lie.
        value_range: Values that become black and white in images of more than 8 bits.
        tiles: Where the rows are tiles of images (`tile_rows`), of which; None where they are images.
    """

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    set_aside: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = ""
    value_range: ValueRange = FULL_RANGE
    tiles: Tiles | None = None

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) positions in `classes`; read-only."""
        positions = {name: position for position, name in enumerate(self.classes)}
        labels = np.array([positions[record.label] for record in self.records], dtype=np.int64)
        labels.flags.writeable = False
        return labels

    @cached_property
    def months(self) -> tuple[str, ...]:
        """The months that occur, oldest first; empty without months."""
        return tuple(sorted({record.month for record in self.records if record.month is not None}))

    @property
    def has_months(self) -> bool:
        """Whether the images have months (all of them do, or none)."""
        return bool(self.months)

    @cached_property
    def has_groups(self) -> bool:
        """Whether any image has a group; one without is a group of its own."""
        return any(record.group is not None for record in self.records)

    def class_counts(self) -> dict[str, int]:
        """Number of images by class name, in the order of `classes`."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}


@dataclass(frozen=True, eq=False)
class Tiles:
    """Which image each row of an index is a tile of; N rows, M images.

    Attributes:
        images: the index of the images.
        image: (N,) int64, row of each tile's image there; ascending.
        boxes: (N, 4) int64, top, left, height, width in pixels of the original image.
        trainable: (N,) bool; False for tiles that show too little of a defect to be called one, and too much for none.
        normal: position of the normal class, or None.
    """

    images: ImageIndex
    image: NDArray[np.int64]
    boxes: NDArray[np.int64]
    trainable: NDArray[np.bool_]
    normal: int | None


def build_index(
    listing: Listing,
    contents: Sequence[str | Problem],
    *,
    on_bad: OnBad = "refuse",
    min_per_class: int = 5,
    unusable: Mapping[Path, Problem] | None = None,
) -> tuple[ImageIndex, NDArray[np.int64]]:
    """Checks a listing as a whole, now that every file was opened.

    Args:
        listing: The images, with what was already found wrong.
        contents: For each listed image the digest of its pixels, or why it cannot be read.
        on_bad: "refuse" raises with everything that is wrong; "set_aside" leaves it out: bad images, both copies of
            the same picture under two labels, then classes left with fewer than `min_per_class` images.
        min_per_class: Fewest images of a class.
        unusable: By path, what is wrong with images that can be read themselves.

    Returns:
        The index, and for each record its position among all readable images in the index's order: int64, ascending,
        0..N-1 where nothing readable was set aside.

    Raises:
        BadImages: Something is wrong and `on_bad` is "refuse", or fewer than two classes are left.
    """
    problems = [*listing.problems, *(content for content in contents if isinstance(content, Problem))]
    readable = sorted(
        ((image, digest) for image, digest in zip(listing.images, contents, strict=True) if isinstance(digest, str)),
        key=_canonical,
    )
    conflicts, unusable = _conflicts(readable), unusable or {}
    conflicts |= {row: unusable[image.path] for row, (image, _) in enumerate(readable) if image.path in unusable}
    problems += conflicts.values()
    # While refusing, every image counts: a class is not also too small because of a contradiction to be settled.
    kept = [row for row in range(len(readable)) if on_bad == "refuse" or row not in conflicts]
    counts = Counter(readable[row][0].label for row in kept)
    root = printable(listing.root)
    for label in sorted({image.label for image in listing.images}):
        if counts[label] < min_per_class:
            reason = f"class {label!r} has {counts[label]} usable images, fewer than data.min_per_class={min_per_class}"
            problems.append(Problem(root, reason))
            if on_bad == "set_aside":
                del counts[label]
    kept = [row for row in kept if readable[row][0].label in counts]
    classes = tuple(sorted(counts))
    if len(classes) < _FEWEST_CLASSES:
        found = f"only the class {classes[0]!r}" if classes else "no images"
        left = " left" if problems else ""
        # While refusing, the cause stands first.
        place = 0 if on_bad == "set_aside" else len(problems)
        problems.insert(place, Problem(root, f"{found}{left}; at least {_FEWEST_CLASSES} classes are needed"))
    if problems and (on_bad == "refuse" or len(classes) < _FEWEST_CLASSES):
        raise BadImages(problems, f"{root} (data.on_bad={on_bad})")
    records = tuple(_record(*readable[row]) for row in kept)
    shares = Counter(record.split for record in records if record.split is not None and listing.root.is_dir())
    parts = [f"{shares[split]} {split}" for split in ("train", "val", "test") if shares[split]]
    drawn = "" if shares["val"] else "; validation images are drawn from train"
    said = [f"Split as the folders say: {', '.join(parts)}{drawn}."] if parts else []
    notes = (*said, *listing.notes, *_duplicates(records))
    index = ImageIndex(records, classes, tuple(problems), notes, _digest(records))
    return index, np.array(kept, dtype=np.int64)


def value_notes(index: ImageIndex) -> list[str]:
    """What the user should know of the values of the images."""
    records, notes = index.records, []
    black, white, _ = index.value_range
    if wide := sum(record.values is not None for record in records):
        some = "" if wide == len(records) else f" ({wide} of {len(records)}, the others have 8 bits)"
        notes.append(f"16-bit images{some}: values {black} to {white} become 0 to 255.")
    other = [record for record in records if value_problem(record.values, index.value_range)]
    if other:
        example = f"{printable(other[0].path)} ({described_values(other[0].values)})"
        notes.append(f"{len(other)} of {len(records)} images do not fit that, such as {example}: clipped, or too dark.")
    few = sorted(record.grey_levels for record in records if record.grey_levels < _FEW_LEVELS)
    if len(few) > _SHARE * len(records):
        share = f"{len(few)} of {len(records)} images use few of the 256 grey levels that a network is shown"
        notes.append(f"{share}: {few[len(few) // 2]} in the middle one of them.")
    return notes


def _canonical(pair: tuple[ListedImage, str]) -> tuple[str | bytes, ...]:
    image, digest = pair
    return digest, image.label, image.month or "", image.group or "", image.split or "", os.fsencode(image.path)


def _record(image: ListedImage, digest: str) -> ImageRecord:
    known = (image.path, image.label, image.month, image.group, image.split, image.mask)
    return ImageRecord(*known, digest, size=image.size)


def _conflicts(readable: Sequence[tuple[ListedImage, str]]) -> dict[int, Problem]:
    """Positions of pictures that occur under several labels."""
    places: dict[str, list[int]] = defaultdict(list)
    for row, (_, digest) in enumerate(readable):
        places[digest].append(row)
    conflicts = {}
    for rows in places.values():
        for row in rows:
            image = readable[row][0]
            other = next((readable[r][0] for r in rows if readable[r][0].label != image.label), None)
            if other is not None:
                reason = f"labelled {image.label!r}, but the same picture is labelled {other.label!r} in "
                conflicts[row] = Problem(printable(image.path), reason + printable(other.path))
    return conflicts


def _duplicates(records: Sequence[ImageRecord]) -> list[str]:
    repeated = [count for count in Counter(record.digest for record in records).values() if count > 1]
    if not repeated:
        return []
    return [
        f"pictures that occur more than once under one label: {len(repeated)} ({sum(repeated)} files); "
        "splits keep their copies together"
    ]


def _digest(records: Sequence[ImageRecord]) -> str:
    lines = sorted(json.dumps([r.digest, r.label, r.month, r.group, r.split]) for r in records)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
