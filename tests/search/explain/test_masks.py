"""Masks and boxes as people write them: what is read as defect, and what the terminal says of images left out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_modules.errors import InputError
from lightning_modules.images.mask_file import defect_pixels
from search.explain.__main__ import main
from tests.search.explain.test_command import rows_of, save_tiny
from tests.tiff_writer import tiff

SHAPE = (48, 64)
DEFECT = np.zeros(SHAPE, bool)
DEFECT[10:30, 20:50] = True
CLASS_NUMBERS = np.where(DEFECT, 3, 0).astype(np.uint8)
CLASS_NUMBERS[10:15, 20:50] = 100
WHITE = (DEFECT * 255).astype(np.uint8)
NOISE = np.add.outer(np.arange(48), np.arange(64)) % 3 == 0
NOISE[:8] = NOISE[32:] = NOISE[:, :18] = NOISE[:, 52:] = False


def png(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def coloured(defect: tuple[int, ...], ground: tuple[int, ...] = (0, 0, 0), mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.where(DEFECT[:, :, None], defect, ground).astype(np.uint8), mode)


def palette(index: np.ndarray, *colours: int) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8), "P")
    image.putpalette(list(colours))
    return image


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return png(Image.fromarray(np.rot90(WHITE)), exif=exif)


def soft() -> Image.Image:
    """Edges of many greys, as resizing leaves them."""
    large = Image.fromarray(np.kron(WHITE, np.ones((5, 5), np.uint8))).rotate(0.4)
    return large.resize(SHAPE[::-1], Image.Resampling.BICUBIC)


def squares(*values: int | tuple[int, int, int], size: int = 128, format: str = "PNG") -> bytes:
    """Squares of 8 x 8 pixels of these greys or colours, well apart, on black."""
    picture = np.zeros((size, size, 3), np.uint8)
    for number, value in enumerate(values):
        row, column = divmod(number, size // 20)
        picture[20 * row + 5 :, 20 * column + 6 :][:8, :8] = value
    return png(Image.fromarray(picture), format)


def two(low: int, light: int) -> bytes:
    return png(Image.fromarray(np.where(CLASS_NUMBERS == 3, low, np.where(DEFECT, light, 0)).astype(np.uint8)))


READ: dict[str, Callable[[], bytes]] = {
    "0 and 255": lambda: png(Image.fromarray(WHITE)),
    "0 and 1": lambda: png(Image.fromarray(WHITE // 255)),
    "one bit": lambda: png(Image.fromarray(DEFECT)),
    "class numbers": lambda: png(Image.fromarray(CLASS_NUMBERS)),
    "class numbers and 255": lambda: png(Image.fromarray(np.where(CLASS_NUMBERS == 3, 255, CLASS_NUMBERS))),
    "16 bits, class numbers": lambda: png(Image.fromarray(CLASS_NUMBERS.astype(np.uint16))),
    "16 bits, 0 and 65535": lambda: png(Image.fromarray(WHITE.astype(np.uint16) * 257)),
    "red on black": lambda: png(coloured((255, 0, 0))),
    "dark blue on black": lambda: png(coloured((0, 0, 64))),
    "red on black, JPEG": lambda: png(coloured((255, 0, 0)), "JPEG", quality=75, subsampling=0),
    "palette": lambda: png(palette(DEFECT * 2, 0, 0, 0, 128, 0, 0, 0, 128, 0)),
    "palette, white first": lambda: png(palette(~DEFECT, 255, 255, 255, 0, 0, 0)),
    "palette without black": lambda: png(palette(DEFECT, 255, 255, 255, 255, 0, 0)),
    "palette of black alone": lambda: png(palette(DEFECT, 0, 0, 0, 0, 0, 0)),
    "GIF": lambda: png(palette(DEFECT, 0, 0, 0, 255, 255, 255), "GIF"),
    "alpha, black": lambda: png(Image.fromarray(np.dstack([WHITE * 0, WHITE]), "LA")),
    "alpha, white": lambda: png(Image.fromarray(np.dstack([WHITE * 0 + 255, WHITE]), "LA")),
    "alpha, red": lambda: png(coloured((255, 0, 0, 255), (255, 0, 0, 0), "RGBA")),
    "red on nothing": lambda: png(coloured((255, 0, 0, 255), (255, 255, 255, 0), "RGBA")),
    "black on nothing": lambda: png(coloured((0, 0, 0, 255), (255, 255, 255, 0), "RGBA")),
    "red on black, all opaque": lambda: png(coloured((255, 0, 0, 255), (0, 0, 0, 255), "RGBA")),
    "JPEG": lambda: png(Image.fromarray(WHITE), "JPEG", quality=60),
    "JPEG, brighter than white": lambda: png(Image.fromarray(WHITE).point(lambda v: min(255, 2 * v + 9)), "JPEG"),
    "JPEG saved again as PNG": lambda: png(Image.open(io.BytesIO(png(Image.fromarray(WHITE), "JPEG", quality=95)))),
    "noise of the best JPEG": lambda: png(
        Image.fromarray(np.where(NOISE, np.where(DEFECT, 254, 1), WHITE).astype(np.uint8))
    ),
    "WebP": lambda: png(Image.fromarray(CLASS_NUMBERS), "WEBP", lossless=True),
    "soft edges": lambda: png(soft()),
    "TIFF, white is 0": lambda: tiff((~DEFECT * 65535).astype(np.uint16), 16, photometric=0),
    "TIFF, floating point": lambda: tiff(DEFECT.astype(np.float32), 32),
    "TIFF, class numbers as floating point": lambda: tiff(CLASS_NUMBERS.astype(np.float32), 32),
    "classes 10 and 250": lambda: two(10, 250),
    "classes 15 and 240": lambda: two(15, 240),
    "classes 1, 254 and 255": lambda: png(
        Image.fromarray(np.where(CLASS_NUMBERS == 3, 1, WHITE - (NOISE & DEFECT)).astype(np.uint8))
    ),
    "classes 1 and 250": lambda: two(1, 250),
    "classes and 255 at their border": lambda: two(1, 255),
    "TIFF, floating point, small": lambda: tiff(DEFECT.astype(np.float32) / 1000, 32),
    "TIFF, floating point, small and 1": lambda: tiff(np.where(CLASS_NUMBERS == 3, 1e-3, DEFECT).astype("f4"), 32),
    "turned by EXIF": turned,
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a photograph": (
        lambda: png(Image.fromarray(np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8))),
        "neither black and white nor, in a PNG, of at most 16 values; its values are 0, 1, 2, 3, ..., 255 (256 diff",
    ),
    "numbers of 40 defects": (
        lambda: png(Image.fromarray((np.arange(48 * 64).reshape(SHAPE) % 41 * DEFECT).astype(np.uint8))),
        "its values are 0, 1, 2, 3, ..., 40 (41 different)",
    ),
    "class numbers, JPEG": (lambda: png(Image.fromarray(CLASS_NUMBERS), "JPEG"), "in a PNG, of at most 16 values"),
    "20 numbers": (lambda: squares(*range(10, 201, 10)), "10, 20, 30, ..., 200 (21 different)"),
    "30 numbers": (lambda: squares(*range(8, 241, 8), size=192), "8, 16, 24, ..., 240 (31 different)"),
    "15 low numbers and 255": (lambda: squares(*range(1, 16), 254, 255), "(18 different)"),
    **{
        f"{len(classes)} to {classes[-1]}, JPEG": (partial(squares, *classes, format="JPEG"), "in a PNG, of at most")
        for classes in ((60, 120, 180), (76, 150), (127,), (255, 128), (255,) * 15 + (60,), (255, 40), (255, 10))
    },
    "dark red, JPEG": (lambda: squares((128, 0, 0), format="JPEG"), "in a PNG, of at most 16 values"),
    "red and green, JPEG": (lambda: squares((255, 0, 0), (0, 128, 0), format="JPEG"), "in a PNG, of at most 16 values"),
    "TIFF, floating point, many small": (
        lambda: tiff((np.arange(48 * 64).reshape(SHAPE) * 5e-7).astype("f4"), 32), "more than 16 floating-point values",
    ),
    "red on white": (lambda: png(coloured((255, 0, 0), (255, 255, 255))), "colours without black"),
    "no 0": (lambda: png(Image.fromarray(WHITE // 255 + 1)), "no pixel is 0 (no defect); its values are 1, 2 (2 diff"),
    "text": (lambda: b"no image", "not an image of an accepted format"),
    "nothing": (lambda: b"", "empty file (0 bytes)"),
    "16 bits, many": (
        lambda: png(Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(SHAPE))), "(3072 different)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("write", READ.values(), ids=list(READ))
def test_masks_are_read_however_they_are_written(write: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "mask").write_bytes(write())
    found = defect_pixels(tmp_path / "mask")
    assert found.shape == SHAPE
    assert (found != DEFECT).mean() < (0.02 if write is READ["soft edges"] else 0.005)


@pytest.mark.parametrize(("write", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_masks_that_say_nothing_are_refused(write: Callable[[], bytes], reason: str, tmp_path: Path) -> None:
    (tmp_path / "mask").write_bytes(write())
    with pytest.raises(InputError) as caught:
        defect_pixels(tmp_path / "mask")
    assert reason in str(caught.value) and "mask: " in str(caught.value) and "\n" not in str(caught.value)


@given(values=st.sets(st.integers(1, 239), min_size=1, max_size=15), seed=st.integers(0, 999))
def test_every_class_number_is_defect(values: set[int], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    numbers = np.random.default_rng(seed).choice(np.array([0, *values], np.uint8), SHAPE)
    path = tmp_path_factory.getbasetemp() / "numbers.png"
    Image.fromarray(numbers).save(path)
    if (numbers == 0).any():
        np.testing.assert_array_equal(defect_pixels(path), numbers > 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "model")


def explained(
    folder: Path, model: Path, table: str, rows: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str, Path]:
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(6):
        pixels = random.integers(0, 256, SHAPE, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    (folder / f"{table}.csv").write_text("\n".join(rows) + "\n")
    code = main([f"images={folder / 'images'}", f"model={model}", f"{table}={folder / table}.csv", "figures=0",
                 "methods=[gradcam]", "blocks=[stage2]", f"out={folder / 'out'}"])  # fmt: skip
    printed = capsys.readouterr()
    return code, printed.out, printed.err, folder / "out"


def test_the_terminal_counts_what_is_measured_and_what_is_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("class numbers", "red on black", "alpha, black"):
        (tmp_path / f"{name}.png").write_bytes(READ[name]())
    (tmp_path / "empty.png").write_bytes(png(Image.fromarray(WHITE * 0)))
    (tmp_path / "photograph.png").write_bytes(REFUSED["a photograph"][0]())
    masks = ["class numbers.png", "red on black.png", "alpha, black.png", "empty.png", "", "photograph.png"]
    rows = ["path,mask", *(f'images/{n}.png,"{mask}"' for n, mask in enumerate(masks[:5]))]
    code, out, err, folder = explained(tmp_path, model, "masks", [*rows, "images/4.png,photograph.png"], capsys)
    assert code == 1 and "1 problems" in err and "its values are 0, 1, 2, 3, ..., 255" in err
    assert "Explained 6 of 6 images" in out
    counts = "easured against their defects: 3 of 6 images; left out: "
    line = next(line for line in out.splitlines() if counts in line)
    for words in ("1 (no defect in what", "1 (a mask or box that cannot be used)", "1 (no row in the table)"):
        assert words in line
    assert counts in (folder / "index.html").read_text(encoding="utf-8")
    assert counts in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["localisation"]
    assert {row["images"] for row in rows_of(folder / "localisation.csv")} == {"3"}


def test_masks_of_an_image_are_united_and_inverted_ones_are_noted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(~WHITE).save(tmp_path / "inverted.png")
    Image.fromarray(WHITE).save(tmp_path / "other.png")
    rows = [f"images/{n}.png,{mask}.png" for n in range(6) for mask in ("inverted", "other")]
    code, out, _, folder = explained(tmp_path, model, "masks", ["path,mask", *rows], capsys)
    assert code == 0
    assert "easured against their defects: 6 of 6 images; the masks cover more than half of the picture in 6" in out
    # Both masks together are the whole image: chance is 1.
    row = rows_of(folder / "localisation.csv")[0]
    assert float(row["energy"]) - float(row["over_chance"]) == pytest.approx(1, abs=1e-5)


def test_boxes_that_do_not_fit_are_counted(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = ["20,10,50,30", "0,0,65,48", "40,20,120,40", "-30,2,20,20", "10.1,10.1,10.2,10.2"]
    rows = [f"images/{n}.png,{box}" for n, box in enumerate(boxes)]
    code, out, err, _ = explained(tmp_path, model, "boxes", ["path,xmin,ymin,xmax,ymax", *rows], capsys)
    assert code == 1 and "2 problems" in err
    assert err.count("lies outside the image of 64 x 48 pixels; boxes are xmin,ymin,xmax,ymax in pixels of the") == 2
    for words in ("2 of 6 images", "2 (a mask or box that", "1 (no row in the table)", "1 (no defect in what"):
        assert words in out


@pytest.mark.parametrize(
    ("rows", "reason"),
    [("a.png,100,20,30,40", "corners, not width and height"), ("a.png,0.1,0.2,0.5,1", "boxes must be in pixels, all")],
)
def test_boxes_of_another_kind_are_refused(
    rows: str, reason: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err, folder = explained(tmp_path, model, "boxes", ["path,xmin,ymin,xmax,ymax", rows], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1) and reason in err
    assert not folder.exists()
