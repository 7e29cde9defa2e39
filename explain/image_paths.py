"""From a path or a pattern to image files, and from the files to batches."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from explain.annotations import image_shape
from explain.arguments import ArgumentError, printable
from explain.subject import Subject

__all__ = ["Batch", "batches", "find_images"]

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that could be read: N paths and (N, 3, H, W) in [0, 1]."""

    paths: tuple[Path, ...]
    images: Tensor


def find_images(pattern: str, exclude: Collection[Path] = ()) -> list[Path]:
    """Image files, sorted.

    Args:
        pattern: a file; a folder, searched to its depth for image files, hidden ones left out; or a pattern with
            *, ?, [...] and ** for any depth, whose files are taken whatever they are called.
        exclude: resolved paths that are no images to explain, such as masks.

    Raises:
        ArgumentError: nothing is found.
    """
    path = Path(pattern)
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
        found = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        reason = "the folder holds no image"
    elif path.exists():
        found, reason = [path], "it is a mask"
    else:
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (may be absolute)
        reason = "the pattern matches no file" if glob.has_magic(pattern) else "no such file or folder"
    images = sorted(p for p in found if p.is_file() and not (exclude and p.resolve() in exclude))
    if not images:
        raise ArgumentError(f"images must name at least one image file, got {printable(pattern)}: {reason}")
    return images


def batches(
    subject: Subject, paths: Sequence[Path], size: int, problems: dict[Path, str], *, enlarge: bool
) -> Iterator[Batch]:
    """Batches of at most `size` images, read as they are asked for.

    Args:
        subject: reads the images.
        paths: files.
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
