"""Reading one image file, good and bad."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_modules.errors import BadImages, InputError, Problem, printable
from lightning_modules.images.reading import decode_image, fit_image, read_image
from lightning_modules.images.value_range import ValueRange

LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]


@pytest.mark.parametrize(("format", "options"), LOSSLESS)
@pytest.mark.parametrize("colour", [False, True])
def test_lossless_formats_give_the_same_pixels(picture, encode, format: str, options: Any, colour: bool) -> None:
    pixels = picture(1, colour=colour)
    read = read_image(encode(pixels, format, **options))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels if colour else pixels[:, :, None])


def test_jpeg_is_read(picture, encode) -> None:
    smooth = np.linspace(0, 255, 12 * 16).reshape(12, 16).astype(np.uint8)
    read = read_image(encode(smooth, "JPEG", quality=95))
    assert read.shape == (12, 16, 1)
    assert np.abs(read[:, :, 0].astype(int) - smooth).max() < 12


def test_grey_saved_as_colour_is_grey(picture, encode) -> None:
    grey = picture(1)
    read = read_image(encode(np.dstack([grey] * 3)))
    np.testing.assert_array_equal(read, grey[:, :, None])


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_modes(picture, encode, mode: str) -> None:
    grey, colour = picture(1), picture(2, colour=True)
    half = np.full_like(grey, 128)
    black = (colour.astype(float) * 128 / 255).round()
    cases: dict[str, tuple[Image.Image, str, Any]] = {
        "1": (Image.fromarray(grey > 127), "PNG", np.where(grey > 127, 255, 0)[:, :, None]),
        "P": (
            Image.fromarray(colour).quantize(8),
            "PNG",
            np.asarray(Image.fromarray(colour).quantize(8).convert("RGB")),
        ),
        "LA": (
            Image.fromarray(np.dstack([grey, half]), "LA"),
            "PNG",
            (grey.astype(float) * 128 / 255).round()[:, :, None],
        ),
        "RGBA": (Image.fromarray(np.dstack([colour, half])), "PNG", black),
        "CMYK": (Image.fromarray(colour).convert("CMYK"), "TIFF", colour),
        "I;16": (Image.fromarray(grey.astype(np.uint16) * 257), "PNG", grey[:, :, None]),
        "I": (Image.fromarray(grey.astype(np.int32) * 257), "TIFF", grey[:, :, None]),
        "F": (Image.fromarray(grey.astype(np.float32) / 255), "TIFF", grey[:, :, None]),
    }
    image, format, expected = cases[mode]
    assert image.mode == mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        read = read_image(encode(image, format))
    assert np.abs(read.astype(int) - expected).max() <= 1
    assert read.shape == expected.shape


def test_transparent_palette_is_composited_on_black(encode) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    read = read_image(encode(image, transparency=0))
    np.testing.assert_array_equal(read, [[[0, 0, 0], [0, 255, 0]]])


@pytest.mark.parametrize(
    ("format", "wide"),
    [("PNG", False), ("JPEG", False), ("TIFF", False), ("WEBP", False), ("PNG", True), ("TIFF", True)],
)
def test_exif_orientation_is_applied(picture, encode, format: str, wide: bool) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    pixels = picture(1).astype(np.uint16) * 257 if wide else picture(1)
    read = read_image(encode(pixels, format, exif=exif))
    assert read.shape[:2] == (16, 12)
    if format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read[:, :, 0], np.rot90(picture(1), -1))


def test_the_range_scales_wide_images_only(picture, encode) -> None:
    wide = encode(picture(1).astype(np.uint16) * 16)
    assert read_image(wide).max() < 17
    assert read_image(wide, known=ValueRange(0, 4095)).max() > 250
    np.testing.assert_array_equal(read_image(encode(picture(1)), known=ValueRange(0, 4095)), picture(1)[:, :, None])


def _sixteen_bit_rgb(encode: Any) -> bytes:
    """A PNG header that says 16 bits a channel over 8-bit data: nothing decodes it before the header is refused."""
    data = bytearray(encode(np.zeros((2, 2, 3), np.uint8)))
    data[24] = 16
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def _bad(kind: str, picture: Any, encode: Any) -> bytes:
    grey, colour = picture(1, 40, 40), picture(1, 40, 40, colour=True)
    pages = [Image.fromarray(colour), Image.fromarray(255 - colour)]
    return {
        "empty": lambda: b"",
        "text": lambda: b"path,label\n",
        "gif": lambda: encode(grey, "GIF"),
        "png header": lambda: encode(colour)[:20],
        "jpeg header": lambda: encode(colour, "JPEG")[:12],
        "truncated png": lambda: encode(colour)[:2000],
        "truncated jpeg": lambda: encode(colour, "JPEG")[:1500],
        "truncated bmp": lambda: encode(colour, "BMP")[:3000],
        "truncated tiff": lambda: encode(colour, "TIFF")[:3000],
        "truncated webp": lambda: encode(colour, "WEBP")[:500],
        "pages": lambda: encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]),
        "animation": lambda: encode(pages[0], "WEBP", save_all=True, append_images=pages[1:]),
        "rgb16": lambda: _sixteen_bit_rgb(encode),
        "float": lambda: encode(grey.astype(np.float32), "TIFF"),
        "nan": lambda: encode(np.full((4, 4), np.nan, np.float32), "TIFF"),
        "int32": lambda: encode(grey.astype(np.int32) * 1000, "TIFF"),
        "lab": lambda: encode(Image.fromarray(colour).convert("LAB"), "TIFF"),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", r"empty file \(0 bytes\)"),
        ("text", "not an image of an accepted format .PNG, JPEG, BMP, TIFF or WebP"),
        ("gif", "not an image of an accepted format .PNG"),
        ("png header", "header"),
        ("jpeg header", "header"),
        ("truncated png", "truncated PNG"),
        ("truncated jpeg", "truncated JPEG"),
        ("truncated bmp", "truncated BMP"),
        ("truncated tiff", "truncated TIFF"),
        ("truncated webp", "header cannot be read"),
        ("pages", "2 pages or frames"),
        ("animation", "2 pages or frames"),
        ("rgb16", "16 bits a channel in colour"),
        ("float", r"accepted are values in \[0, 1\]"),
        ("nan", "floating-point values"),
        ("int32", r"accepted in 0\.\.65535"),
        ("lab", "colour mode LAB; accepted are"),
    ],
)
def test_bad_files_get_one_line(picture, encode, tmp_path: Path, kind: str, reason: str) -> None:
    data = _bad(kind, picture, encode)
    with pytest.raises(InputError, match=reason) as caught:
        read_image(data)
    assert "\n" not in str(caught.value)
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    with pytest.raises(BadImages, match=rf"a b\.png: .*{reason}"):
        read_image(path)


def test_a_bomb_is_refused_by_its_header(picture, encode, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("1", (8_000, 8_000)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"8000 x 8000 = 64000000 pixels .* data\.max_pixels=50000000"):
        decode_image(data)


def test_max_pixels_beyond_pillows_own_limit_is_accepted(encode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_image(encode(Image.new("L", (8, 8)))).shape == (8, 8, 1)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.symlink_to(path.name), "unreadable"),
        (lambda path: path.write_bytes(bytes(2_000_000)), r"data\.max_pixels=64 accepts at most"),
    ],
)
def test_what_is_no_file_is_named(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "x.png"
    make(path)
    with pytest.raises(BadImages, match=rf"x\.png: .*{reason}"):
        read_image(path, max_pixels=64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 255), st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP"]))
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # odd metadata of a damaged file
def test_damage_never_raises_anything_else(place: int, value: int, format: str) -> None:
    import io

    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format)
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    try:
        read = read_image(bytes(data), max_pixels=100_000)
    except InputError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert read.dtype == np.uint8 and read.ndim == 3


@settings(deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(1, 30), st.integers(1, 30),
    st.sampled_from(["stretch", "pad", "crop"]), st.integers(0, 255),
)  # fmt: skip
def test_fitting_keeps_a_plain_picture_plain(h: int, w: int, c: int, height: int, width: int, fit: Any, v: int) -> None:
    fitted = fit_image(np.full((h, w, c), v, np.uint8), (height, width), fit)
    assert fitted.shape == (height, width, c)
    assert (fitted == v).all()


def test_fits_differ_as_documented() -> None:
    wide = np.zeros((10, 30, 1), np.uint8)
    wide[:, 10:20] = 255
    np.testing.assert_array_equal(fit_image(wide, (10, 10), "crop"), 255)
    padded = fit_image(wide, (30, 30), "pad")
    np.testing.assert_array_equal(padded, np.repeat(wide[:1], 30, axis=0))
    stretched = fit_image(wide, (10, 3), "stretch")[:, :, 0]
    assert (stretched[:, 1] > 150).all() and (stretched[:, 0] < 100).all()


def test_reduction_averages() -> None:
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    fitted = fit_image(checker.astype(np.uint8)[:, :, None], (8, 8))
    assert np.abs(fitted.astype(int) - 127).max() <= 2


def test_unknown_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="fit must be one of stretch, pad, crop, got 'squash'"):
        fit_image(np.zeros((2, 2, 1), np.uint8), (2, 2), "squash")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("결함/a b.png", "결함/a b.png"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("a\nb\x1b[1m.png", r"a\nb\x1b[1m.png"),
    ],
)
def test_printable(path: str, text: str) -> None:
    assert printable(path) == text


def test_bad_images_say_how_many() -> None:
    problems = [Problem("a.png", "empty"), Problem("b.png", "truncated")]
    assert str(BadImages(problems[:1], "IN")) == "a.png: empty"
    several = BadImages(problems, "IN (data.on_bad=refuse)")
    assert str(several) == "2 bad inputs in IN (data.on_bad=refuse): first: a.png: empty"
    assert several.problems == tuple(problems)
    with pytest.raises(ValueError, match="at least one problem"):
        BadImages([])
