"""What a TIFF's tags say of its samples where Pillow does not heed them."""

from __future__ import annotations

import io
from typing import Any, Final

from PIL import Image, TiffTags
from PIL.TiffImagePlugin import II, MM, OPEN_INFO, ImageFileDirectory_v2

__all__ = ["bits", "described", "refusal", "use_native_order", "white_is_zero"]

_COMPRESSION, _PHOTOMETRIC, _INK_SET = 259, 262, 332
_BITS, _COLOR_MAP, _DOT_RANGE, _EXTRA, _FORMAT, _SUBSAMPLING = 258, 320, 336, 338, 339, 530
_CMYK, _YCBCR = 5, 6
_DECISIVE: Final = (_BITS, _FORMAT, _PHOTOMETRIC, 277, _EXTRA, 284, _COMPRESSION)
_KINDS: Final = {_FORMAT: {"unsigned": 1, "signed": 2, "floating-point": 3}}

# Pillow reads these where 0 is black, and where 0 is white not at all; it inverts neither.
for _prefix, _depth, _mode, _raw in ((MM, 16, "I;16B", "I;16B"), (II, 12, "I;16", "I;12")):
    OPEN_INFO.setdefault((_prefix, 0, (1,), 1, (_depth,), ()), (_mode, _raw))


def white_is_zero(image: Image.Image) -> bool:
    """Whether 0 is white; Pillow inverts what has up to 8 bits itself, and no other."""
    return bool(_tags(image).get(_PHOTOMETRIC) == 0)


def bits(image: Image.Image) -> int:
    """Bits of a sample in a TIFF."""
    return int(_tags(image).get(_BITS, (1,))[0])


def use_native_order(image: Image.Image) -> None:
    """Let an image that is not loaded be read as libtiff gives it: in this machine's order of bytes, not the file's."""
    tile = next(iter(image.tile), None)  # type: ignore[attr-defined]
    if tile and tile.codec_name == "libtiff" and tile.args[0] in ("F;32BF", "I;16BS", "I;32BS"):
        args = (tile.args[0].replace("B", "N"), *tile.args[1:])
        image.tile = [tile._replace(args=args)]  # type: ignore[attr-defined]


def refusal(image: Image.Image) -> str | None:
    """Why what Pillow would make of a TIFF is not what its tags say, in one line; None where it is."""
    tags = _tags(image)
    photometric, extra, palette = tags.get(_PHOTOMETRIC), tags.get(_EXTRA, ()), tags.get(_COLOR_MAP, (0,))
    dots, coarse = tags.get(_DOT_RANGE, (0, 255)), tags.get(_SUBSAMPLING, (2, 2)) != (1, 1)
    reasons = {
        "no PhotometricInterpretation, so 0 may be black or white; save it with BlackIsZero": photometric is None,
        "signed 8-bit samples (SampleFormat); convert to unsigned": bits(image) <= 8 and 2 in tags.get(_FORMAT, ()),
        f"{len(extra)} ExtraSamples; accepted are grey, RGB and CMYK with alpha at most": len(extra) > 1,
        "ColorMap with values of 8 bits, where TIFF has 16; save it as RGB": 0 < max(palette) < 256,
        "YCbCr with YCbCrSubSampling and no compression; save it as RGB": (
            photometric == _YCBCR and coarse and tags.get(_COMPRESSION, 1) == 1
        ),
        "inks other than those of CMYK (InkSet), or inverted (DotRange); save it as RGB": (
            photometric == _CMYK and (tags.get(_INK_SET, 1) != 1 or dots[0] > dots[1])
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def described(data: bytes) -> str | None:
    """Why a TIFF that Pillow does not take for an image is not read, by its tags; None where they are damaged."""
    try:
        tags = ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        words = ", ".join(f"{TiffTags.lookup(tag).name} {_word(tag, tags[tag])}" for tag in _DECISIVE if tag in tags)
    except Exception:  # as in `decode_image`
        return None
    order = "big" if data.startswith(MM) else "little"
    return words and (
        f"TIFF with {words}, {order}-endian is not read; save it as unsigned grey of 8 or 16 bits, grey of 32-bit "
        "floating point in [0, 1], or 8-bit RGB"
    )


def _word(tag: int, value: Any) -> str:
    words = {number: name for name, number in (TiffTags.lookup(tag).enum or _KINDS.get(tag, {})).items()}
    numbers = value if isinstance(value, tuple) else (value,)
    return "/".join(dict.fromkeys(str(words.get(number, number)) for number in numbers))


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})
