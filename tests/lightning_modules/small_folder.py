"""A folder of small images, loaded; and what that left in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_modules.images.store import ImageSet, load_images

SIZE = (8, 10)


def load_folder(root: Path, cache: Path, **options: Any) -> ImageSet:
    return load_images("folder", root, **({"size": SIZE, "min_per_class": 2, "cache": cache} | options))


def files_of(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.name != ".lock"}
