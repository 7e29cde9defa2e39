"""The contact sheet of a look: a row a class, some images of it at the size and fit that a network is shown."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightning_modules.errors import InputError, printable
from lightning_modules.images.index import ImageRecord
from lightning_modules.images.reading import decode_image, fit_image, read_bytes
from lightning_modules.images.value_range import choose_range, scale_to_uint8, wide_values
from lightning_modules.whole_file import whole_file
from search.look.survey import Survey

__all__ = ["contact_sheet"]

_ACROSS = 8
_CLASSES = 40  # rows at most: a picture of more cannot be looked at
_SIDE = 128  # pixels of an image on the sheet
_LABELS = 170
_GAP = 4
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def contact_sheet(found: Survey, file: Path) -> None:
    """Write the sheet, a PNG; a file of that name is replaced.

    Images are drawn from all months and groups evenly. A label that is too long is cut.

    Raises:
        InputError: the file cannot be written.
    """
    height, width = found.resolution.size
    scale = _SIDE / max(height, width)
    cell = (max(1, round(height * scale)), max(1, round(width * scale)))
    shown = found.index.classes[:_CLASSES]
    across, down = _LABELS + _ACROSS * (cell[1] + _GAP), len(shown) * (cell[0] + _GAP) + _GAP
    sheet = Image.new("RGB", (across, down), _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    counts = found.index.class_counts()
    for row, name in enumerate(shown):
        top = _GAP + row * (cell[0] + _GAP)
        label = f"{_cut(draw, printable(name), font)}\n{counts[name]}"
        draw.multiline_text((_GAP, top + cell[0] // 2), label, fill=_INK, font=font, anchor="lm")
        for column, picture in enumerate(_pictures(found, name)):
            place = (_LABELS + column * (cell[1] + _GAP), top)
            sheet.paste(picture.resize((cell[1], cell[0]), Image.Resampling.NEAREST), place)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file, alone=False) as temporary:
            sheet.save(temporary, format="PNG")
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{printable(file)} cannot be written ({why}); to= names another") from None


def _pictures(found: Survey, name: str) -> Iterator[Image.Image]:
    records = [record for record in found.index.records if record.label == name]
    records.sort(key=lambda record: (record.month or "", record.group or "", record.digest))
    chosen = np.unique(np.linspace(0, len(records) - 1, _ACROSS).round().astype(int))
    for place in chosen.tolist():
        picture = _picture(found, records[place])
        if picture is not None:
            yield picture


def _picture(found: Survey, record: ImageRecord) -> Image.Image | None:
    """The image as a network sees it; None where it turns out not to be one. Of 16 bits each has a range of its own."""
    try:
        pixels = decode_image(read_bytes(record.path))
    except InputError:
        return None
    values = wide_values(pixels, found.index.value_range)
    scaled = scale_to_uint8(pixels, choose_range([values]))
    fitted = fit_image(scaled, found.resolution.size, found.resolution.fit)
    return Image.fromarray(fitted[..., 0] if fitted.shape[2] == 1 else fitted).convert("RGB")


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One that has Hangul too, of the package that figures take it from."""
    spec = find_spec("koreanize_matplotlib")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("fonts/*.ttf")):
            return ImageFont.truetype(file, 14)
    return ImageFont.load_default(14)


def _cut(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    room = _LABELS - 2 * _GAP
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(f"{text}…", font=font) > room:
        text = text[:-1]
    return f"{text}…"
