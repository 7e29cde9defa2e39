"""Small seeded pictures, folders of them, and indexes without files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lightning_modules.images import decoding
from lightning_modules.images.index import ImageIndex, ImageRecord

Encode = Callable[..., bytes]
MakeFolder = Callable[..., Path]
MakeIndex = Callable[..., ImageIndex]


def _picture(seed: int, height: int = 12, width: int = 16, colour: bool = False) -> NDArray[np.uint8]:
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    """Seeded noise: `picture(seed, height=12, width=16, colour=False)`."""
    return _picture


@pytest.fixture
def encode() -> Encode:
    """Bytes of an encoded image: `encode(array_or_image, format="PNG", **options)`."""

    def encoded(pixels: NDArray[Any] | Image.Image, format: str = "PNG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, format, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture
def make_folder(tmp_path: Path, encode: Encode) -> MakeFolder:
    """Writes `{folder: number of pictures}` below a root; every picture is another one."""
    made = iter(range(1_000_000))

    def folder(counts: dict[str, int], *, root: Path | None = None, colour: bool = False) -> Path:
        place = tmp_path / "images" if root is None else root
        for name, count in counts.items():
            (place / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (place / name / f"{number:03d}.png").write_bytes(encode(_picture(next(made), colour=colour)))
        return place

    return folder


@pytest.fixture
def make_index() -> MakeIndex:
    """An index of rows (label, month, group, split, digest), of which trailing ones may be left out."""

    def index(rows: Sequence[Sequence[str | None]]) -> ImageIndex:
        records = []
        for number, row in enumerate(rows):
            label, month, group, split, digest = (*row, *[None] * (5 - len(row)))
            identity = digest or f"{number:08x}"
            records.append(ImageRecord(Path(f"{number}.png"), label or "", month, group, split, None, identity))
        classes = tuple(sorted({record.label for record in records}))
        return ImageIndex(tuple(records), classes, digest="of the test")

    return index


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every image decoded."""
    counted: list[int] = []
    decode = decoding.decode_image

    def counting(data: bytes, **options: Any) -> Any:
        counted.append(len(data))
        return decode(data, **options)

    monkeypatch.setattr(decoding, "decode_image", counting)
    return counted


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for stores that is still to be made."""
    return tmp_path / "cache" / "below"
