"""Reading one image file, whatever its kind, into uint8 pixels of the wanted size."""

from __future__ import annotations

import io
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_modules.errors import BadImages, InputError, Problem, printable
from lightning_modules.images import tiff_tags
from lightning_modules.images.value_range import FULL_RANGE, ValueRange, scale_to_uint8, value_problem, wide_values

__all__ = [
    "ACCEPTED_FORMATS",
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "Fit",
    "decode_image",
    "decoded",
    "field_of_view",
    "fit_image",
    "header_size",
    "looks_like_image",
    "pixels_of",
    "read_bytes",
    "read_image",
]

Fit = Literal["stretch", "pad", "crop"]
_Taken = TypeVar("_Taken")

ACCEPTED_FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
DEFAULT_MAX_PIXELS: Final = 50_000_000
# Suffixes that promise an image, those of formats that are not accepted included: a folder of GIF files must be
# reported, not skipped.
IMAGE_SUFFIXES: Final = frozenset(
    f".{name}"
    for name in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "tif", "tiff", "webp"),
        *("gif", "jp2", "j2k", "jxl", "heic", "heif", "avif", "ico", "pbm", "pgm", "ppm", "pnm", "tga", "pcx", "dcm"),
    )
)

_ACCEPTED_TEXT: Final = "PNG, JPEG, BMP, TIFF or WebP"
_SIGNATURES: Final = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "big-endian BigTIFF"),
    (b"RIFF", "WebP"),
)
# Enough of each to tell it from a text that begins with BM or RIFF.
_IMAGE_START: Final = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II\*\0|MM\0\*|RIFF.{4}WEBP|BM.{4}\0{4}", re.DOTALL)
_WIDE_MODES: Final = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_PLAIN_MODES: Final = ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "P")
_ALPHA_MODES: Final = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION: Final = 0x0112  # EXIF; 5 to 8 exchange height and width
_ON_ITS_SIDE: Final = (5, 6, 7, 8)
# An uncompressed image of 16 bytes a pixel fits; a file beyond that is no image within `max_pixels`.
_BYTES_A_PIXEL: Final = 16
# Pillow checks sizes against a module global. Ours is the argument `max_pixels`, so the global is off while a header
# is read.
_header_lock = threading.Lock()


def looks_like_image(path: Path) -> bool:
    """By the suffix of its name; where that has none, or a number, by the first bytes of the file."""
    suffix = path.suffix.lower()
    if suffix.strip(".0123456789"):
        return suffix in IMAGE_SUFFIXES
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:  # a pipe would be waited for
            return _IMAGE_START.match(file.read(12)) is not None
    except OSError:
        return False


def read_bytes(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """Contents of a regular file of at most 16 bytes a pixel accepted, or 1 MiB.

    Raises:
        InputError: With the reason alone (no path): missing, not a regular file, no permission, empty, too large.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError("is a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError("is not a regular file")
        limit = max(_BYTES_A_PIXEL * max_pixels, 1 << 20)
        if status.st_size > limit:
            raise InputError(f"file of {status.st_size} bytes; data.max_pixels={max_pixels} accepts at most {limit}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(f"unreadable ({error.strerror or type(error).__name__})") from None
    if not data:
        raise InputError("empty file (0 bytes)")
    return data


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Pixels of an encoded image before any scaling of 16-bit values.

    Orientation from EXIF is applied, alpha is composited on black, palettes are resolved, a TIFF whose 0 is white is
    inverted; colour profiles, gamma and least or largest sample values are ignored. A picture without colour is grey
    however it was saved. Floating-point TIFF is accepted in [0, 1] only. A kind of sample that cannot be read as its
    metadata says is refused by the name of that.

    Args:
        max_pixels: Largest width x height accepted, compared with the header before decoding.

    Returns:
        uint8 of shape (H, W, 1) or (H, W, 3), or uint16 of shape (H, W, 1) for files of more than 8 bits a pixel.

    Raises:
        InputError: With the reason alone.
    """
    return decoded(data, pixels_of, max_pixels=max_pixels)


def decoded(
    data: bytes,
    take: Callable[[Image.Image], _Taken],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    formats: tuple[str, ...] = ACCEPTED_FORMATS,
) -> _Taken:
    """What `take` makes of an encoded image that was checked, loaded and turned upright; see `decode_image`."""
    if not data:
        raise InputError("empty file (0 bytes)")
    image = _open(data, formats)
    try:
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"{width} x {height} = {width * height} pixels in the header, more than data.max_pixels={max_pixels}"
            )
        # A multi-picture JPEG (MPO) is what many phones write: its first picture is the photograph.
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if pages > 1:
            raise InputError(f"{pages} pages or frames in one file; one image a file is accepted")
        if _sixteen_bit_colour(image):
            raise InputError("16 bits a channel in colour or with alpha; accepted are 16-bit grey and 8-bit colour")
        if image.format == "TIFF" and (reason := tiff_tags.refusal(image)) is not None:
            raise InputError(reason)
        tiff_tags.use_native_order(image)
        _scale_transparency(image)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return take(image)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly any kind on damaged files
        detail = _detail(error)
        kind = "truncated" if "truncated" in detail.lower() else "cannot be decoded"
        raise InputError(f"{kind} {image.format} ({detail})") from None


def header_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels of an encoded image turned upright, by its header alone; None where that is no image.

    The orientation of a PNG counts where it stands before the pixels, as nearly always: to look behind them is to
    decode them.
    """
    try:
        image = _open(data, ACCEPTED_FORMATS)
        width, height = image.size
        # Pillow turns the size of a TIFF itself.
        counts = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        turned = counts and image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    except Exception:  # as in `decoded`, which says what is wrong with it
        return None
    if min(width, height) < 1:
        return None
    return (width, height) if turned else (height, width)


def read_image(
    source: Path | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, known: ValueRange | None = None
) -> NDArray[np.uint8]:
    """Pixels of an image file as the training saw them.

    Args:
        source: Path of the file, or its contents.
        max_pixels: As in `decode_image`.
        known: Values that the training knows (`ImageIndex.value_range`); when not given, any are read as of 0..65535.

    Returns:
        uint8 of shape (H, W, C) with C = 1 (grey) or 3 (RGB).

    Raises:
        InputError: The reason in one line, after the path where `source` is one: missing, empty, not an image of an
            accepted format, truncated, more than `max_pixels`, several pages, 16-bit colour, other values than the
            training's (`value_problem`).
    """
    if isinstance(source, Path):
        try:
            return read_image(read_bytes(source, max_pixels=max_pixels), max_pixels=max_pixels, known=known)
        except InputError as error:
            raise BadImages([Problem(printable(source), str(error))]) from None
    pixels = decode_image(source, max_pixels=max_pixels)
    if known is not None and (problem := value_problem(wide_values(pixels, known), known)):
        raise InputError(problem)
    return scale_to_uint8(pixels, known or FULL_RANGE)


def fit_image(pixels: NDArray[np.uint8], size: tuple[int, int], fit: Fit = "stretch") -> NDArray[np.uint8]:
    """Pixels resized to one size.

    Reduction is antialiased: Pillow's bilinear filter, whose support grows with the reduction, after an integer box
    reduction where the image is more than three times too large. All its weights are positive. Lanczos, sharper, is
    not used because it overshoots: it draws halos around sharp echoes and edges, which a network can learn and its
    maps would show.

    Args:
        pixels: uint8 of shape (H, W, C), C = 1 or 3.
        size: (height, width) of the result, in pixels.
        fit: "stretch" ignores the aspect ratio; "crop" keeps it and cuts the longer side, centred; "pad" keeps it and
            repeats the edge pixels around the centred image. Not zeros: a black bar whose width follows the aspect
            ratio is a feature (defect kinds differ in aspect), and its edge would light up in the maps.

    Returns:
        uint8 of shape (size[0], size[1], C).

    Raises:
        ValueError: Unknown `fit`.
    """
    box, (top, left, inner_h, inner_w) = field_of_view((pixels.shape[0], pixels.shape[1]), size, fit)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    inner = _resize(image, inner_w, inner_h, (box[1], box[0], box[3], box[2]))
    if fit != "pad":
        return inner
    gaps = ((top, size[0] - inner_h - top), (left, size[1] - inner_w - left), (0, 0))
    return np.pad(inner, gaps, mode="edge")


def field_of_view(
    sides: tuple[int, int], size: tuple[int, int], fit: Fit
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """Which part of an image `fit_image` shows, and where it stands in the result.

    Args:
        sides: height and width of the image, in pixels.
        size: those of the result.

    Returns:
        top, left, bottom and right in pixels of the image; top, left, height and width in pixels of the result, of
        which the rest is padding.

    Raises:
        ValueError: Unknown `fit`.
    """
    if fit not in get_args(Fit):
        raise ValueError(f"fit must be one of {', '.join(get_args(Fit))}, got {fit!r}")
    (rows, columns), (height, width) = sides, size
    whole = (0.0, 0.0, float(rows), float(columns))
    if fit == "stretch":
        return whole, (0, 0, height, width)
    if fit == "crop":
        scale = max(height / rows, width / columns)
        left, top = (columns - width / scale) / 2, (rows - height / scale) / 2
        # Rounding can leave the box a hair outside the image, which Pillow refuses.
        box = (max(top, 0.0), max(left, 0.0), min(rows - top, float(rows)), min(columns - left, float(columns)))
        return box, (0, 0, height, width)
    scale = min(height / rows, width / columns)
    inner_h, inner_w = max(1, min(height, round(rows * scale))), max(1, min(width, round(columns * scale)))
    return whole, ((height - inner_h) // 2, (width - inner_w) // 2, inner_h, inner_w)


def _resize(image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    array = np.asarray(resized, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def _open(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    with _header_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            for signature, name in _SIGNATURES:
                if data.startswith(signature):
                    unreadable = f"unreadable header of a {name} (truncated, damaged or a rare kind)"
                    raise InputError(("TIFF" in name and tiff_tags.described(data)) or unreadable) from None
            raise InputError(f"not an image of an accepted format ({_ACCEPTED_TEXT})") from None
        except Exception as error:  # as in decode_image
            raise InputError(f"header cannot be read ({_detail(error)})") from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _detail(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _sixteen_bit_colour(image: Image.Image) -> bool:
    """Whether Pillow would silently drop the low byte of every channel."""
    if image.mode in _WIDE_MODES or not image.tile:  # type: ignore[attr-defined]
        return False
    # The decoder's arguments are a raw mode such as "RGB;16B", or a tuple that holds one.
    # Of a TIFF with a strip for each channel the raw mode is that of a channel.
    wide = tiff_tags.bits(image) > 8 and len(image.getbands()) > 1
    return wide or ";16" in str(image.tile[0][3])  # type: ignore[attr-defined]


def _scale_transparency(image: Image.Image) -> None:
    """Let the transparent grey of a PNG that is not loaded be of 8 bits, as Pillow makes the pixels of 2 and 4 bits."""
    colour = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(colour, int) and image.tile:  # type: ignore[attr-defined]
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}.get(str(image.tile[0][3]), 1)  # type: ignore[attr-defined]


def pixels_of(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """What `decode_image` gives, of an image that `decoded` has loaded."""
    mode = image.mode
    inverted = tiff_tags.white_is_zero(image)
    if mode in _WIDE_MODES:
        wide = np.asarray(image)
        low, high = int(wide.min()), int(wide.max())
        if low < 0 or high > FULL_RANGE.white:
            raise InputError(
                f"values {low}..{high}; grey images of more than 8 bits are accepted in 0..65535: convert to unsigned"
            )
        if inverted:
            wide = 2 ** tiff_tags.bits(image) - 1 - wide.astype(np.int64)
        if isinstance(transparent := image.info.get("transparency"), int):
            wide = np.where(wide == transparent, 0, wide)
        return wide.astype(np.uint16)[:, :, None]
    if mode == "F":
        real: NDArray[np.float32] = np.asarray(image)
        if not (np.isfinite(real).all() and real.min() >= 0 and real.max() <= 1):
            raise InputError(f"floating-point values {real.min():g}..{real.max():g}; accepted are values in [0, 1]")
        real = 1 - real if inverted else real
        return np.rint(real * 255).astype(np.uint8)[:, :, None]
    if mode == "La":  # already multiplied by alpha, as on black
        image = image.getchannel(0)
    elif mode in _ALPHA_MODES or (mode in _PLAIN_MODES and image.has_transparency_data):
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode not in _PLAIN_MODES:
        raise InputError(f"colour mode {mode}; accepted are grey, RGB, alpha, palette, CMYK and YCbCr")
    elif mode not in ("L", "RGB"):
        image = image.convert("RGB")
    array: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    if array.ndim == 2:
        return array[:, :, None]
    grey = array[:, :, :1]
    return np.ascontiguousarray(grey) if (array == grey).all() else array
