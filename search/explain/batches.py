"""From image files to batches, read as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from explain.subject import Subject
from lightning_modules.errors import printable
from search.explain.annotations import image_shape

__all__ = ["Batch", "batches"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that could be read: N paths and (N, 3, H, W) in [0, 1]."""

    paths: tuple[Path, ...]
    images: Tensor


def batches(
    subject: Subject, paths: Sequence[Path], size: int, problems: dict[Path, str], *, enlarge: bool
) -> Iterator[Batch]:
    """Batches of at most `size` images, read as they are asked for.

    Args:
        size: most images in a batch.
        problems: receives the files that cannot be explained, with the reason; those already in it are not read.
        enlarge: whether images smaller than the network's minimum are read.
    """
    for start in range(0, len(paths), size):
        read: list[tuple[Path, Tensor]] = []
        for path in paths[start : start + size]:
            if path in problems:
                continue
            try:
                image = subject.read(path)
                height, width = image_shape(path)
            except (OSError, ValueError) as error:
                problems[path] = _reason(path, error)
                continue
            if min(height, width) < subject.minimum and not enlarge:
                problems[path] = (
                    f"{width} x {height} pixels, smaller than the network's minimum of "
                    f"{subject.minimum} x {subject.minimum}; enlarge=true explains it enlarged"
                )
                continue
            read.append((path, image))
        if read:
            yield Batch(tuple(path for path, _ in read), torch.cat([image for _, image in read]))


def _reason(path: Path, error: Exception) -> str:
    """The message without the path, which is printed before it."""
    text = printable(error)
    return text.removeprefix(f"{printable(path)}: ")
