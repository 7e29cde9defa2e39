"""HTML that every page of ours is made of: inert text, tables, pictures that are part of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_modules.errors import printable

__all__ = ["definitions", "jpeg", "picture", "table", "text"]


def text(words: object) -> str:
    """Words as HTML text or attribute value, inert whatever they hold, on one line."""
    return escape(printable(str(words)), quote=True)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    words: int = 1,
    kind: str = "",
    marked: Sequence[bool] = (),
) -> str:
    """A table that scrolls by itself and can be reached with the keyboard.

    Args:
        header: cells, HTML.
        rows: of cells, HTML, the first of which heads its row; one that begins with `<td` or `<th` is taken as it is.
        caption: what it shows, plain text, for those who hear the page.
        words: how many leading columns are text.
        kind: its class.
        marked: rows that stand out; those beyond the last do not.
    """

    def of_kind(number: int) -> str:
        return ' class="word"' if number < words else ""

    def cell(number: int, value: str) -> str:
        if value.startswith(("<td", "<th")):
            return value
        tag, scope = ("td", "") if number else ("th", ' scope="row"')
        return f"<{tag}{scope}{of_kind(number)}>{value}</{tag}>"

    head = "".join(f'<th scope="col"{of_kind(number)}>{value}</th>' for number, value in enumerate(header))
    marks = [' class="seen"' if mark else "" for mark in marked] + [""] * (len(rows) - len(marked))
    body = "".join(
        f"<tr{mark}>{''.join(cell(n, value) for n, value in enumerate(row))}</tr>\n"
        for row, mark in zip(rows, marks, strict=True)
    )
    named = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table{named}>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def definitions(facts: Iterable[tuple[str, str]]) -> str:
    """Terms (plain text) and what they are (HTML)."""
    return "<dl>" + "".join(f"<dt>{text(term)}</dt><dd>{words}</dd>" for term, words in facts) + "</dl>\n"


def picture(pixels: NDArray[np.uint8], alt: str, caption: str, side: int | None = None) -> str:
    """A picture with a caption.

    Args:
        pixels: (H, W, 3).
        alt: what it shows, plain text.
        caption: HTML.
        side: reduced until no side is longer, in pixels; None leaves it as it is.
    """
    image = Image.fromarray(pixels)
    if side is not None:
        image.thumbnail((side, side))
    return (
        f'<figure><img src="data:image/jpeg;base64,{jpeg(image)}" width="{image.width}" height="{image.height}" '
        f'alt="{text(alt)}"><figcaption>{caption}</figcaption></figure>'
    )


def jpeg(image: Image.Image) -> str:
    """A picture compressed, in base64: a page of many megabytes is slow to open and to send."""
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=80)
    return base64.b64encode(memory.getvalue()).decode()
