"""What a file's metadata says of its samples is heeded, or refused by name: over kinds of sample and tags."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lightning_modules.errors import InputError
from lightning_modules.images.reading import decode_image, read_image
from tests.tiff_writer import packed, tiff

GREY = np.array([[10, 100, 200, 255], [0, 50, 128, 254]], np.uint8)
ALPHA = np.array([[255, 128, 0, 64], [255, 255, 128, 128]], np.uint8)
COLOUR = np.dstack([GREY, GREY // 2, 255 - GREY])
WIDE = GREY.astype(np.uint16) * 257
ON_BLACK = np.rint(GREY * (ALPHA / 255)).astype(np.uint8)


def test_sixteen_bits_whose_zero_is_white_are_inverted() -> None:
    data = tiff(np.array([[2570, 51400]], np.uint16), 16, photometric=0)
    assert read_image(data)[0, :, 0].tolist() == [245, 55]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8, 12, 16, 32]), st.booleans(), st.sampled_from("<>"),
    st.sampled_from([(1, 1), (8, 1), (8, 2)]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_white_and_black_order_of_bytes_and_compression_change_no_pixel(
    bits: int, white: bool, order: str, packing: tuple[int, int], seed: int
) -> None:
    """The same picture is the same pixels, at every depth (32: floating point)."""
    compression, predictor = packing
    random = np.random.default_rng(seed)
    top = 2**bits - 1
    if bits == 32:
        kept = (random.integers(0, 256, (5, 7)) / 255).astype(np.float32)
        expected, written = np.rint(kept * 255), (1 - kept if white else kept).astype(np.float32)
    else:
        kept = random.integers(0, top + 1, (5, 7)).astype(np.uint16 if bits > 8 else np.uint8)
        expected, written = kept * (255 // top if bits <= 8 else 1), (top - kept if white else kept).astype(kept.dtype)
    if bits == 12 and order == ">":
        order = "<"  # refused by name, below
    if predictor == 2 and bits not in (8, 16):
        predictor = 1
    data = tiff(written, bits, order=order, photometric=1 - white, compression=compression, predictor=predictor)
    np.testing.assert_array_equal(decode_image(data)[:, :, 0], expected)


def _png(samples: NDArray[Any], bits: int, transparent: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    height, width = samples.shape
    rows = packed(samples, bits, ">")
    step = len(rows) // height
    lines = b"".join(b"\0" + rows[step * y : step * (y + 1)] for y in range(height))
    parts = (
        (b"IHDR", struct.pack(">LLBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", transparent)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_black(bits: int) -> None:
    top = 2**bits - 1
    samples = np.array([[0, 1, top, top - 1]], np.uint16)
    scale = 1 if bits == 16 else 255 // top
    expected = np.where(samples == top, 0, samples) * scale
    np.testing.assert_array_equal(decode_image(_png(samples, bits, top))[:, :, 0], expected)


LOOK_UP = np.zeros((3, 256), int)
LOOK_UP[:, :4] = [[0, 65535, 0, 32896], [0, 0, 65535, 32896], [0, 0, 0, 32896]]
HEEDED: dict[str, tuple[bytes, NDArray[Any]]] = {
    "a strip for each channel": (tiff(COLOUR, photometric=2, planar=2, compression=8, predictor=2), COLOUR),
    "alpha": (tiff(np.dstack([GREY, ALPHA]), tags={338: [2]}), ON_BLACK),
    "alpha, already multiplied": (tiff(np.dstack([ON_BLACK, ALPHA]), tags={338: [1]}), ON_BLACK),
    "another sample, no alpha": (tiff(np.dstack([COLOUR, ALPHA]), photometric=2, tags={338: [0]}), COLOUR),
    "palette": (
        tiff(GREY % 4, 4, photometric=3, tags={320: LOOK_UP[:, :16].ravel()}),
        (LOOK_UP[:, GREY % 4] // 257).transpose(1, 2, 0),
    ),
    "inks": (tiff(np.asarray(Image.fromarray(COLOUR).convert("CMYK")), photometric=5), COLOUR),
    "least and largest value": (tiff(WIDE // 16, 16, tags={280: [0], 281: [4095]}), WIDE // 16),
    "upside down": (tiff(WIDE, 16, order=">", tags={274: [3]}), WIDE[::-1, ::-1]),
    "signed, none negative, big-endian": (tiff(GREY.astype(np.int16), 16, order=">", compression=8), GREY),
    "float, big-endian, compressed": (tiff((GREY / 255).astype(np.float32), 32, order=">", compression=8), GREY),
    "bits in the other order": (
        tiff(np.packbits(np.unpackbits(GREY[:, :, None], axis=2), axis=2, bitorder="little")[:, :, 0],
             tags={266: [2]}), GREY,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), HEEDED.values(), ids=list(HEEDED))
def test_what_metadata_says_is_heeded(data: bytes, expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(np.squeeze(decode_image(data)), expected)


REFUSED: dict[str, tuple[bytes, str]] = {
    "signed, 8 bits": (tiff(GREY.astype(np.int8)), "signed 8-bit samples (SampleFormat); convert to unsigned"),
    "signed, negative": (tiff(WIDE.astype(np.int16), 16), "values -32640..25700; grey images of more than 8 bits"),
    "signed, white is 0": (tiff(WIDE.astype(np.int16), 16, photometric=0), "SampleFormat signed, Photometric"),
    "10 bits": (tiff(WIDE // 64, 10), "TIFF with BitsPerSample 10, SampleFormat unsigned"),
    "14 bits": (tiff(WIDE // 4, 14, order=">"), "TIFF with BitsPerSample 14"),
    "12 bits, big-endian": (tiff(WIDE // 16, 12, order=">"), "BitsPerSample 12"),
    "half floats": (tiff((GREY / 255).astype(np.float16), 16), "BitsPerSample 16, SampleFormat floating-point"),
    "double floats": (tiff(GREY / 255, 64), "BitsPerSample 64, SampleFormat floating-point"),
    "16 bits a channel": (tiff(np.dstack([WIDE] * 3), 16, photometric=2), "16 bits a channel in colour"),
    "16 bits, a strip for each channel": (
        tiff(np.dstack([WIDE] * 3), 16, photometric=2, planar=2), "16 bits a channel in colour"
    ),
    "16 bits and alpha": (tiff(np.dstack([WIDE, WIDE]), 16, tags={338: [2]}), "ExtraSamples 2"),
    "white is 0, and alpha": (tiff(np.dstack([GREY, ALPHA]), photometric=0, tags={338: [2]}), "WhiteIsZero"),
    "several other samples": (
        tiff(np.dstack([COLOUR, GREY, GREY]), photometric=2, tags={338: [0, 0]}), "2 ExtraSamples; accepted are"
    ),
    "no word on white": (tiff(GREY, tags={262: []}), "no PhotometricInterpretation, so 0 may be black or white"),
    "colour that is called grey": (tiff(COLOUR), "PhotometricInterpretation BlackIsZero, SamplesPerPixel 3"),
    "palette of 8 bits": (tiff(GREY % 4, photometric=3, tags={320: LOOK_UP.ravel() // 257}), "ColorMap with values"),
    "palette of 65536": (tiff(WIDE, 16, photometric=3, tags={320: LOOK_UP.ravel()}), "RGB Palette"),
    "no palette": (tiff(GREY, photometric=3), "RGB Palette"),
    "other inks": (tiff(np.dstack([GREY] * 4), photometric=5, tags={332: [2]}), "(InkSet)"),
    "inverted inks": (tiff(np.dstack([GREY] * 4), photometric=5, tags={336: [255, 0]}), "(DotRange)"),
    "coarse colour": (tiff(COLOUR, photometric=6, tags={530: [2, 2]}), "YCbCr with YCbCrSubSampling"),
    "a raw sensor": (tiff(WIDE, 16, photometric=32803), "PhotometricInterpretation CFA"),
    "unknown compression": (tiff(GREY, tags={259: [34712]}), "Compression 34712"),
    "big-endian BigTIFF": (b"MM\0+" + bytes(40), "unreadable header of a big-endian BigTIFF"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_what_metadata_says_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        decode_image(data)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
