"""From plain values to a page: Jinja2 templates that escape every value, and pictures that are part of the page.

Whatever a template prints is put on one line (`printable`) and escaped; only what a template itself says is HTML. So
no caller has to remember it, and a class named `<script>` is a name on every page. A value that is missing is an error.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape as html_escape
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lightning_modules.errors import printable
from search.pages.numbers import written
from search.words import spoken

__all__ = ["Picture", "data_uri", "drawing", "environment", "jpeg", "picture", "render", "stream"]


@cache
def environment() -> Environment:
    """The templates of all pages."""
    made = Environment(
        loader=PackageLoader("search.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_inert,
        extensions=["jinja2.ext.do"],
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False}
    made.filters |= {
        "written": written, "spoken": spoken, "name": _name, "data_uri": data_uri, "colours": _colours
    }  # fmt: skip
    return made


def render(template: str, /, **values: Any) -> Markup:
    """A template with its values, as HTML that another template takes as it is."""
    return Markup(environment().get_template(template).render(values))  # noqa: S704 # nosec B704 - escaped there


def stream(template: str, /, **values: Any) -> Iterator[str]:
    """The same piece by piece; what is iterated over in the template is asked for as it is written."""
    return environment().get_template(template).generate(values)


@dataclass(frozen=True)
class Picture:
    """A picture that is part of the page.

    Attributes:
        source: data URI.
        width: in pixels.
        height: likewise.
    """

    source: Markup
    width: int
    height: int


def picture(pixels: NDArray[np.uint8] | Image.Image, side: int | None = None) -> Picture:
    """A picture as JPEG.

    Args:
        pixels: (H, W, 3), or an RGB image.
        side: reduced until no side is longer, in pixels; None leaves it as it is.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if side is not None:
        image.thumbnail((side, side))
    return Picture(data_uri(jpeg(image), "jpeg"), image.width, image.height)


def drawing(figure: Figure, dpi: int, **options: Any) -> Picture:
    """A figure as PNG; `options` as `Figure.savefig` takes them."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=dpi, **options)
    with Image.open(memory) as image:
        width, height = image.size
    return Picture(data_uri(memory.getvalue(), "png"), width, height)


def jpeg(image: Image.Image) -> str:
    """A picture compressed, in base64: a page of many megabytes is slow to open and to send."""
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=80)
    return base64.b64encode(memory.getvalue()).decode()


def data_uri(data: bytes | str, kind: str) -> Markup:
    """An image file, bytes or base64, as a data URI: no request is needed."""
    encoded = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    return Markup("data:image/{};base64,{}").format(kind, encoded)


def _inert(value: object) -> Markup:
    """A value as text on one line; of HTML that a template or a filter made, that HTML."""
    if hasattr(value, "__html__"):
        return escape(value)
    return Markup(html_escape(printable(str(value))))  # noqa: S704 # nosec B704 - escaped here


def _name(words: object) -> Markup:
    """A name from the user's data (class, file, block): no script turns the line round, no digit is a result."""
    return Markup("<bdi data-name>{}</bdi>").format(_inert(words))


def _colours(colour_map: str) -> str:
    """Nine colours of a colour map from its lower to its upper end, as CSS takes them."""
    shown = (colormaps[colour_map](k / 8)[:3] for k in range(9))
    return ", ".join("#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in shown)
